"""One part of a corpus to shards: what several pods do side by side before `preprocess` joins their work."""

import json
from pathlib import Path
from typing import Any

from components.preprocess.run import PARTS, earlier_stores, extraction_code, store_key, tell
from components.runner import read_pointer
from components.state import State
from model.config.schema import Config
from model.features.extract import Part, extract_part


def run(data: str, settings: str, part: str) -> dict[str, Any]:
    """Extract one part of the corpus; what an interrupted attempt has done is not done again.

    Args:
        data: Path of the pointer that `resolve_data` wrote.
        settings: JSON of the sections `audio` and `features`.
        part: `2/4` is the third of four equal parts.

    Returns:
        Pointer with `folder` (shards without an index).
    """
    corpus = read_pointer(data)
    told = json.loads(settings)
    state = State.locate()
    number, parts = map(int, part.split("/"))
    folder = state.folder(PARTS, store_key(corpus, told), f"{number}-of-{parts}")
    count = extract_part(
        Path(corpus["folder"]),
        folder,
        Config.model_validate(told),
        Part(number, parts),
        code=extraction_code(),
        earlier=earlier_stores(state.root / "features"),
        report=tell,
    )
    return {"folder": str(folder), "data": corpus["hash"], "summary": f"part {part}: {count} clips"}
