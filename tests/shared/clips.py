"""Entries of a manifest for tests."""

from typing import Any

from model.corpus.manifest import Clip


def make_clip(name: str = "a", text: str = "Some words that are said.", *, rate: int = 22050, **fields: Any) -> Clip:
    """Returns a clip with this id and text: English, two seconds long, unless `fields` says otherwise."""
    defaults = {
        "audio": f"audio/{name}.flac",
        "language": "en",
        "speaker": "s",
        "seconds": 2.0,
        "sample_rate": rate,
        "source_sample_rate": rate,
    }
    return Clip(id=name, text=text, **{**defaults, **fields})
