"""Features that a benchmark of training can make for itself in seconds: a generated corpus of 28 sentences."""

from pathlib import Path

from model.config.resolution import resolve
from model.corpus.ingest import ingest
from model.corpus.split import split
from model.corpus.validate import validate
from model.features.extract import build_features

SETTINGS = {
    "corpus.engine": "espeak",
    "corpus.english_voices": 1,
    "corpus.persian_voices": 1,
    "corpus.sentences_per_voice": 14,
    "split.min_held_out": 3,
    "vocoder.griffin_lim_iterations": 4,
}


def small_features(folder: Path) -> Path:
    """A feature store under `folder`, made where it is missing."""
    features = folder / "features"
    if not features.is_dir():
        config = resolve(None, None, SETTINGS).config
        ingest(config, folder / "ingested")
        validate(folder / "ingested", folder / "validated", config)
        split(folder / "validated", folder / "corpus", config)
        build_features(folder / "corpus", features, config)
    return features
