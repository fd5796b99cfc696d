"""Ground truth of alignments: when each phone was said, beside the audio of speech that tells of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from model.corpus.sources import Timings

ALIGNMENTS = "alignments.jsonl"


def write_alignments(folder: Path, timings: Mapping[str, Timings]) -> Path:
    """Write `folder/alignments.jsonl`: one `{"id", "phones": [[phone, start, end], ...]}` a line, in seconds."""
    path = folder / ALIGNMENTS
    lines = (
        json.dumps({"id": name, "phones": [[p, round(a, 5), round(b, 5)] for p, a, b in times]}, ensure_ascii=False)
        for name, times in timings.items()
    )
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def read_alignments(folder: Path) -> dict[str, Timings]:
    """Clip id -> (phone, start, end) in seconds; empty where the corpus has none."""
    path = folder / ALIGNMENTS
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return {record["id"]: [(phone, start, end) for phone, start, end in record["phones"]] for record in records}
