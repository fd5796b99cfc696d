"""Where a pipeline runs: what differs between this machine and a cluster, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

STEPS = ("resolve_data", "preprocess", "train", "evaluate", "register", "gate")


@dataclass(frozen=True)
class Profile:
    """A target of the pipeline.

    Attributes:
        name: `local` or `cluster`.
        images: Step -> image. Locally the name only carries the hash of the step's code, so that a changed line
            makes the cached result stale; nothing is pulled.
        state_volume: Claim that holds the state, mounted into every pod; empty where the file system is shared anyway.
        secrets: Secret -> {key in it: environment variable}; only names ever stand in a compiled pipeline.
        environment: Variables of every pod.
    """

    name: str
    images: Mapping[str, str]
    state_volume: str = ""
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


STATE_MOUNT = "/state"


def local_profile() -> Profile:
    """Subprocesses on this machine; every step's image is named after the code that it runs."""
    from components.source import code_hash

    return Profile("local", {step: f"local-python:{code_hash(f'components.{step}.run')}" for step in STEPS})


def cluster_profile(
    image: str, state_volume: str = "myxtts-state", tracking_uri: str = "http://mlflow:5000"
) -> Profile:
    """Pods of one image, the state on a shared volume, credentials from secrets of the namespace."""
    return Profile(
        name="cluster",
        images=dict.fromkeys(STEPS, image),
        state_volume=state_volume,
        secrets={"myxtts-s3": {"access-key": "AWS_ACCESS_KEY_ID", "secret-key": "AWS_SECRET_ACCESS_KEY"}},
        environment={"MYXTTS_STATE": STATE_MOUNT, "MLFLOW_TRACKING_URI": tracking_uri},
    )
