"""Generated corpora for benchmarks: made and extracted once per folder, then reused."""

from __future__ import annotations

from pathlib import Path

from model.config.data import PreprocessSettings
from model.config.resolution import resolve
from model.config.schema import Config
from model.corpus.ingest import ingest
from model.corpus.split import split
from model.corpus.validate import validate
from model.features.extract import build_features
from model.features.store import FeatureStore

SETTINGS = {
    "corpus.engine": "espeak",
    "corpus.generated_voices": {"en": 1, "fa": 1},
    "corpus.sentences_per_voice": 14,
    "split.min_held_out": 3,
    "vocoder.griffin_lim_iterations": 4,
}
"""Corpus of 28 sentences, whose features are built in seconds."""


def prepare(config: Config, folder: Path) -> tuple[Path, FeatureStore]:
    """Returns corpus folder and features of a configuration; both are made below `folder` unless they exist."""
    features = folder / "features"
    if not features.exists():
        ingest(config, folder / "ingested")
        validate(folder / "ingested", folder / "validated", config)
        split(folder / "validated", folder / "corpus", config)
        build_features(folder / "corpus", features, PreprocessSettings.of(config))
    store = FeatureStore(features)
    store.check(config.audio)
    return folder / "corpus", store


def small_features(folder: Path) -> Path:
    """Returns the features of a corpus of 28 sentences; they are made below `folder` unless they exist."""
    return prepare(resolve(None, None, SETTINGS).config, folder)[1].path
