"""Problems of single clips, which the stages report instead of dropping clips silently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from model.errors import CorpusError
from model.files import read_records, write_json_lines

PROBLEMS = "problems.jsonl"
REMAKE = "run `dvc repro` to make it again"
"""Fix of a damaged file of a stage."""

BAD = "bad"
"""Severity of a problem: the clip is left out and counts against `validation.tolerated_bad_share`."""
SUSPECT = "suspect"
"""Severity of a problem: the clip is probably wrong, but kept; listen to it."""
NOTE = "note"
"""Severity of a problem: the clip is kept and needs no action."""
SEVERITIES = (BAD, SUSPECT, NOTE)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A finding about one clip or file.

    Attributes:
        id: Id of the clip, or empty for a file or line without one.
        file: The file, or `file:line` of a row.
        reason: Short name of the kind of problem (`missing_recording`, `silent`, ...).
        detail: Description with numbers.
        severity: `bad`, `suspect` or `note`.
    """

    id: str
    file: str
    reason: str
    detail: str
    severity: str = BAD


def write_problems(folder: Path, problems: Iterable[Problem]) -> Path:
    """Writes `folder/problems.jsonl` and returns its path."""
    return write_json_lines(folder / PROBLEMS, map(asdict, problems))


def read_problems(folder: Path) -> list[Problem]:
    """Returns the problems of `folder/problems.jsonl`; none if there is no such file."""
    path = folder / PROBLEMS
    return read_records(path, Problem, CorpusError, REMAKE) if path.is_file() else []
