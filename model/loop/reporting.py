"""Reporting of a run: the history file and the logger protocol."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from model.errors import MyXTTSError


class HistoryError(MyXTTSError):
    """A history cannot be read; the message says where and what to do."""


class History:
    """Appends records to a file.

    Args:
        path: Created where it is missing.
        step: The step that the run goes on from: what a killed run wrote past it is cut off, since those steps come
            again, and so is a line torn by the kill.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            kept = [record for record in read_history(path) if record["step"] <= step]
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")
            os.replace(partial, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, **values: Any) -> None:
        """One record, on disk when this returns from Python's side."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_history(path: Path) -> list[dict[str, Any]]:
    """Every whole record of a history, oldest first; NaN and infinity are read as such.

    Raises:
        HistoryError: a line is none that a training wrote.
    """
    lines = path.read_bytes().split(b"\n")[:-1]  # after the last newline there is nothing, or a torn line
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:  # no JSON, or no UTF-8
            raise HistoryError(f"{path}:{number}: damaged ({error}); remove this line, or train anew") from error
    return records


class RunLogger(Protocol):
    """Receives what a run produces. Must neither block nor raise for a slow or dead server."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Named values at an optimiser step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file (plot, audio, report) under a folder name."""

    def close(self) -> None:
        """Flush what is pending."""


class NullLogger:
    """Keeps nothing: for tests and for runs that only want their output folder."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        pass

    def artifact(self, path: Path, folder: str = "") -> None:
        pass

    def close(self) -> None:
        pass
