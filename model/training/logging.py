"""What the trainer tells the outside: metrics and files, through a small protocol that knows no tracking server."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


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
