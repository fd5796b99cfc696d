"""Generated corpora for benchmarks: made and extracted once per folder, then found again."""

from __future__ import annotations

from pathlib import Path

from model.config.schema import Config
from model.corpus.ingest import ingest
from model.corpus.split import split
from model.corpus.validate import validate
from model.features.extract import build_features
from model.features.store import FeatureStore


def prepare(config: Config, folder: Path) -> tuple[Path, FeatureStore]:
    """The corpus folder and the features of `config`, made below `folder` unless they are there."""
    features = folder / "features"
    if not features.exists():
        ingest(config, folder / "ingested")
        validate(folder / "ingested", folder / "validated", config)
        split(folder / "validated", folder / "corpus", config)
        build_features(folder / "corpus", features, config)
    store = FeatureStore(features)
    store.check(config.audio)
    return folder / "corpus", store
