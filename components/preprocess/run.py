"""Corpus to features: the shards that training reads, kept under the hash of the data, the settings and the code."""

import json
from pathlib import Path
from typing import Any

from components.source import code_hash
from components.state import State
from components.step import emit, read_pointer
from model.config import Config, settings_hash
from model.features.extract import Progress, build_features
from model.features.index import INDEX, read_about

MOST_EARLIER = 8
"""Earlier stores that are searched for unchanged clips."""


def run(data: str, settings: str) -> dict[str, Any]:
    """Build the features of a corpus, or find them built.

    Args:
        data: Path of the pointer that `resolve_data` wrote.
        settings: JSON of the sections `audio` and `features`.

    Returns:
        Pointer with `folder`, `hash` (content) and the `data` it was made from.
    """
    corpus = read_pointer(data)
    told = json.loads(settings)
    code = code_hash("components.preprocess.run")
    key = settings_hash({"data": corpus["hash"], "settings": told, "code": code})
    state = State.locate()
    folder = state.features(key)
    with state.lock(f"features-{key}"):
        if not (folder / INDEX).is_file():
            build_features(
                Path(corpus["folder"]),
                folder,
                Config.model_validate(told),
                code=code,
                earlier=earlier_stores(folder.parent),
                report=tell,
            )
    index = read_about(folder)
    return {
        "folder": str(folder),
        "hash": index["content_hash"],
        "data": corpus["hash"],
        "corpus": corpus["folder"],
        "summary": f"{index['number_of_clips']} clips, {index['number_of_frames']} frames",
    }


def earlier_stores(parent: Path) -> list[Path]:
    """Stores to take unchanged clips from, the newest first; those of interrupted builds too."""
    stores = (path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else ()
    return sorted(stores, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST_EARLIER]


def tell(progress: Progress) -> None:
    """Say how far extraction is on the step's output."""
    values = {"x real time": round(progress.speed), "s left": round(progress.time_left)} if progress.speed else {}
    emit("preprocess", "progress", done=progress.done, total=progress.total, **values)
