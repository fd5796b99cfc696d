"""Ground truth of alignments: the times of phones, for speech of a synthesizer that reports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.corpus.problems import REMAKE
from model.corpus.sources import Timings
from model.errors import CorpusError
from model.files import read_records, write_json_lines

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
    return {record.id: record.phones for record in read_records(path, _Aligned, CorpusError, REMAKE)}


@dataclass(frozen=True, kw_only=True)
class _Aligned:
    """A line of the file."""

    id: str
    phones: Timings
