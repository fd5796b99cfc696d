"""Corpus to features: the shards that training reads, kept under the hash of the data, the settings and the code."""

import json
from pathlib import Path
from typing import Any

from components.source import code_hash
from components.state import State
from components.step import read_pointer
from model.config import Config, settings_hash
from model.features.extract import build_features


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
    key = settings_hash({"data": corpus["hash"], "settings": told, "code": code_hash("components.preprocess.run")})
    state = State.locate()
    folder = state.features(key)
    with state.lock(f"features-{key}"):
        if not (folder / "index.json").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            build_features(Path(corpus["folder"]), folder, Config.model_validate(told), progress=True)
    index = json.loads((folder / "index.json").read_text("utf-8"))
    return {
        "folder": str(folder),
        "hash": index["content_hash"],
        "data": corpus["hash"],
        "corpus": corpus["folder"],
        "summary": f"{len(index['clips'])} clips, {sum(clip['frames'] for clip in index['clips'])} frames",
    }
