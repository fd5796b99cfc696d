"""Reporting of a run: history file, logger protocol, and the reporter that feeds both, the log and a progress bar."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from model.errors import MyXTTSError
from model.files import read_records, write_text

log = logging.getLogger(__name__)


class HistoryError(MyXTTSError):
    """A history file cannot be read; the message names the line and the fix."""


class History:
    """Appends records to a file of JSON lines.

    Args:
        path: File, created where it is missing.
        step: Step that the run resumes from. Records of later steps, which will be trained again, and a line that a
            crash cut short are removed.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            kept = (record for record in read_history(path) if record["step"] <= step)
            write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one record and flushes it to the operating system."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_history(path: Path) -> list[dict[str, Any]]:
    """Returns every complete record of a history, oldest first; values may be NaN or infinite.

    Raises:
        HistoryError: a line is no JSON object with a step.
    """
    fix = "damaged; remove this line, or train again"
    records = read_records(path, dict[str, Any], HistoryError, fix)
    for number, record in enumerate(records, 1):
        if type(record.get("step")) is not int:
            raise HistoryError(f"{path}:{number}: `step` is {record.get('step')!r}, not a number; {fix}")
    return records


class RunLogger(Protocol):
    """Receives the metrics and files of a run. Must neither block nor raise when a server is slow or down."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Records named values at an optimizer step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Records a file (plot, audio, report) under a folder name."""

    def close(self) -> None:
        """Delivers all pending records."""


class NullLogger:
    """Logger that discards everything, for tests and for runs that need nothing but their output folder."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        pass

    def artifact(self, path: Path, folder: str = "") -> None:
        pass

    def close(self) -> None:
        pass


class RunReporter:
    """Reports a run: metrics to history and logger, events to history and log, progress to the terminal.

    Args:
        output: Folder of the run; the history is `history.jsonl` in it.
        logger: Receives metrics and files besides the history.
        step: Step that the run starts or resumes from.
        total: Step that the run ends at.
        shown: Short name in the progress bar -> name of the metric.
        enabled: False in all processes but the first, which then report nothing.
    """

    def __init__(
        self,
        output: Path,
        logger: RunLogger,
        *,
        step: int,
        total: int,
        shown: Mapping[str, str],
        enabled: bool = True,
    ) -> None:
        self._logger, self._shown = logger, shown
        self._history = History(output / "history.jsonl", step) if enabled else None
        # `disable=None` hides the bar where stderr is no terminal.
        self._bar = tqdm(total=total, initial=step, unit="step", disable=None if enabled else True, mininterval=1.0)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Records named values at a step."""
        if self._history is None:
            return
        self._history.write(step, values)
        self._logger.metrics(step, values)
        if all(name in values for name in self._shown.values()):
            self._bar.set_postfix({short: f"{values[name]:.3f}" for short, name in self._shown.items()})

    def event(self, step: int, message: str, **values: Any) -> None:
        """Records an exceptional event: `values` in the history, `message` as a warning in the log."""
        if self._history is not None:
            self._history.write(step, values)
            log.warning("step %d: %s", step, message)

    def files(self, paths: Iterable[Path], folder: str | None = None) -> None:
        """Passes files to the logger, under `folder` or the name of the folder that each lies in."""
        if self._history is not None:
            for path in paths:
                self._logger.artifact(path, path.parent.name if folder is None else folder)

    def progress(self, step: int) -> None:
        """Sets the progress bar to a step, which may be an earlier one after a rollback."""
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._bar.close()
        if self._history is not None:
            self._history.close()
