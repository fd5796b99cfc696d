"""What is wrong with single clips: found while reading or checking, written down, never dropped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

PROBLEMS = "problems.jsonl"

BAD = "bad"
"""The clip is left out, and counts against `validation.tolerated_bad_share`."""
SUSPECT = "suspect"
"""Probably wrong and worth a listen; the clip is kept."""
NOTE = "note"
"""Worth knowing; the clip is kept."""
SEVERITIES = (BAD, SUSPECT, NOTE)


@dataclass(frozen=True)
class Problem:
    """One finding about one clip or file.

    Attributes:
        id: Clip, or empty where a file or line belongs to none.
        file: The file, or `file:line` of a row, where it was found.
        reason: Short name of the kind of problem (`missing_recording`, `silent`, ...).
        detail: What exactly, with the numbers.
        severity: `bad`, `suspect` or `note`.
    """

    id: str
    file: str
    reason: str
    detail: str
    severity: str = BAD


def write_problems(folder: Path, problems: Iterable[Problem]) -> Path:
    """Write `folder/problems.jsonl`."""
    path = folder / PROBLEMS
    path.write_text("".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in problems), "utf-8")
    return path


def read_problems(folder: Path) -> list[Problem]:
    """Problems of `folder/problems.jsonl`; none where there is no such file."""
    path = folder / PROBLEMS
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [Problem(**json.loads(line)) for line in file]
