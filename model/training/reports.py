"""What a run tells: metrics to history and tracking, events to history and log, progress to the terminal."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model.acoustic.batch import Batch
from model.loop.devices import compiled_graphs
from model.loop.reporting import History, RunLogger
from model.training.step import Step

log = logging.getLogger(__name__)


class Reports:
    """Of the process that reports; the others hold a silent one.

    Args:
        output: Folder of the run.
        logger: Where metrics and files go besides the history.
        step, total: Where the run goes on, and where it ends.
        silent: Tell nobody anything.
    """

    def __init__(self, output: Path, logger: RunLogger, step: int, total: int, silent: bool = False) -> None:
        self._logger, self._silent = logger, silent
        self._history = None if silent else History(output / "history.jsonl", step)
        self._bar = tqdm(total=total, initial=step, unit="step", disable=silent or None, mininterval=1.0)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Named values at a step."""
        if self._history is None:
            return
        self._history.write(step, **values)
        self._logger.metrics(step, values)
        shown = {"mel": "train/mel", "align": "train/forward_sum"}
        if all(name in values for name in shown.values()):
            self._bar.set_postfix({short: f"{values[name]:.3f}" for short, name in shown.items()})

    def event(self, step: int, message: str, **values: Any) -> None:
        """Something that should not happen, or happens once: a line in the history and a warning."""
        if self._history is not None:
            self._history.write(step, **values)
            log.warning("step %d: %s", step, message)

    def files(self, paths: list[Path]) -> None:
        """Plots and audio, each under the name of its folder."""
        if self._history is None:
            return
        for path in paths:
            self._logger.artifact(path, path.parent.name)

    def progress(self, step: int) -> None:
        """Move the bar, back as well."""
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._bar.close()
        if self._history is not None:
            self._history.close()


class Meter:
    """Values between two log lines: the last step's losses, the window's means and counts.

    Args:
        count_graphs: Report how many graphs are compiled, which must stop growing after the first epoch.
        processes: That train together; each computes about as many frames as this one.
    """

    def __init__(self, count_graphs: bool, processes: int = 1) -> None:
        self._count_graphs, self._processes = count_graphs, processes
        self._steps: list[Step] = []
        self._frames = 0
        self._shapes: set[tuple[int, ...]] = set()
        self._started = time.monotonic()

    def add(self, batch: Batch, step: Step) -> None:
        self._steps.append(step)
        self._frames += int(batch.mel_lengths.sum())
        self._shapes.add((*batch.ids.shape[:2], batch.mel.shape[1]))

    def lap(self, step: Step) -> dict[str, float]:
        """`train/<term>` and the rest since the last lap, which starts a new one; distinct shapes of the whole run."""
        count = len(self._steps)
        values = {f"train/{name}": value for name, value in step.loss.terms.items()}
        values |= {f"weight/{name}": weight for name, weight in step.weights.items()}
        values |= {
            "train/loss": step.loss.total,
            "train/objective": sum(item.objective for item in self._steps) / count,
            "train/learning_rate": step.rate,
            "train/gradient_norm": step.clipping.norm,
            "train/clipped_norm_share": sum(item.clipping.clipped_norm for item in self._steps) / count,
            "train/clipped_element_share": sum(item.clipping.clipped_elements for item in self._steps) / count,
            "train/frames_per_second": self._processes * self._frames / (time.monotonic() - self._started),
            "train/distinct_shapes": float(len(self._shapes)),
        }
        if self._count_graphs:
            values["train/compiled_graphs"] = float(compiled_graphs())
        self._steps, self._frames, self._started = [], 0, time.monotonic()
        return values
