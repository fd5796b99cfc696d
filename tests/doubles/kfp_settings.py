"""Settings that lead to the double of the cluster's API."""

from pathlib import Path

from model.config.resolution import resolve
from pipelines.cluster import Cluster

COMMIT = "c0ffee" * 7
IMAGES = {f"cluster.{kind}_image": f"registry.example/{kind}@sha256:" + "0" * 64 for kind in ("data", "train")}


def settings(host: str, **changes):
    overrides = {"cluster.host": host, "cluster.namespace": "team", "cluster.outage_seconds": 60, **IMAGES}
    return resolve(
        overrides={**overrides, **{f"cluster.{key}": value for key, value in changes.items()}}
    ).config.cluster


def connect(host: str, records: Path | None = None, **changes) -> Cluster:
    return Cluster(settings(host, **changes), sleep=lambda seconds: None, records=records)
