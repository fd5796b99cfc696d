"""Progress of a training step, on its MLflow run and on its output."""

from pathlib import Path

from components.runner import emit
from model.loop.reporting import RunLogger

SHOWN_METRICS = ("/mel", "/mel_distance")
"""Endings of the names of the metrics that are shown while a step runs."""


class ProgressLogger:
    """Run logger of a step: forwards to another logger, and reports the progress on the step's output.

    Args:
        logger: Receives everything. It is not closed here, since only its owner knows the final status of the run.
        step: Name of the step.
        total: Number of optimizer steps of the run.
        prefix: Put before the names of the forwarded metrics.
    """

    def __init__(self, logger: RunLogger, *, step: str, total: int, prefix: str = "") -> None:
        self._logger, self._step, self._total, self._prefix = logger, step, max(total, 1), prefix

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._logger.metrics(step, {f"{self._prefix}{name}": value for name, value in values.items()})
        shown = {name: round(value, 4) for name, value in values.items() if name.endswith(SHOWN_METRICS)}
        emit(self._step, "progress", done=step, total=self._total, **shown)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._logger.artifact(path, folder)

    def close(self) -> None:
        """Does nothing; see `logger`."""
