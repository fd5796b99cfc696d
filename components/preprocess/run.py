"""Corpus to features: the shards that training reads, kept under the hash of the data, the settings and the code."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.feature_remote import CACHE, ELSEWHERE, push
from components.runner import emit, read_pointer
from components.state import State
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.schema import Config
from model.features.extract import Progress, build_features
from model.features.index import INDEX, SHARDS, read_metadata

MOST_EARLIER = 8
"""Earlier stores that are searched for unchanged clips."""


PARTS = "feature-parts"
"""In the state: what parts of a corpus were extracted to before they were joined."""


def run(data: str, settings: str, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Build the features of a corpus, or find them built.

    Args:
        data: Path of the pointer that `resolve_data` wrote.
        settings: JSON of the sections `audio` and `features`.
        parts: Paths of the pointers that `preprocess_part` wrote; what they extracted is joined.

    Returns:
        Pointer with `folder`, `hash` (content) and the `data` it was made from.
    """
    corpus = read_pointer(data)
    told = json.loads(settings)
    config = Config.model_validate(told)
    key = store_key(corpus, told)
    state = State.locate()
    folder = state.features(key)
    extracted = [Path(read_pointer(part)["folder"]) for part in parts]
    with state.lock(f"features-{key}"):
        if not (folder / INDEX).is_file():
            build_features(
                Path(corpus["folder"]),
                folder,
                config,
                code=extraction_code(),
                earlier=[*extracted, *earlier_stores(folder.parent), state.root / CACHE],
                report=tell,
            )
        if config.features.remote and not (folder / ELSEWHERE).is_file():
            push(folder, config.features.remote, config.features.cache_megabytes, state)
        for part in extracted:
            shutil.rmtree(part / SHARDS, ignore_errors=True)  # linked into the store by now
    index = read_metadata(folder)
    return {
        "folder": str(folder),
        "hash": index["content_hash"],
        "data": corpus["hash"],
        "corpus": corpus["folder"],
        "summary": f"{index['number_of_clips']} clips, {index['number_of_frames']} frames",
    }


def store_key(corpus: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What the features of a corpus under these settings are kept under."""
    return settings_hash({"data": corpus["hash"], "settings": settings, "code": extraction_code()})


def extraction_code() -> str:
    """Hash of the sources that extract: features of other sources are not taken over."""
    return code_hash("components.preprocess.run")


def earlier_stores(parent: Path) -> list[Path]:
    """Stores to take unchanged clips from, the newest first; those of interrupted builds too."""
    stores = (path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else ()
    return sorted(stores, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST_EARLIER]


def tell(progress: Progress) -> None:
    """Say how far extraction is on the step's output."""
    values = {"x real time": round(progress.speed), "s left": round(progress.time_left)} if progress.speed else {}
    emit("preprocess", "progress", done=progress.done, total=progress.total, **values)
