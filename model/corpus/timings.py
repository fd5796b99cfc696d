"""Ground truth of alignments: the times of phones, for speech of a synthesizer that reports them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model.corpus.sources import Timings
from model.files import read_json_lines, write_json_lines

ALIGNMENTS = "alignments.jsonl"


def write_alignments(folder: Path, timings: Mapping[str, Timings]) -> Path:
    """Writes `folder/alignments.jsonl`, with one `{"id", "phones": [[phone, start, end], ...]}` in seconds per line."""
    return write_json_lines(
        folder / ALIGNMENTS,
        (
            {"id": name, "phones": [(phone, round(start, 5), round(end, 5)) for phone, start, end in phones]}
            for name, phones in timings.items()
        ),
    )


def read_alignments(folder: Path) -> dict[str, Timings]:
    """Returns (phone, start, end) in seconds by clip id; empty if the corpus has no alignments."""
    path = folder / ALIGNMENTS
    if not path.is_file():
        return {}
    records = read_json_lines(path)
    return {record["id"]: [(phone, start, end) for phone, start, end in record["phones"]] for record in records}
