"""Metrics of the steps between two log lines."""

from __future__ import annotations

import time

from model.acoustic.batch import Batch
from model.loop.devices import compiled_graphs
from model.training.step import Step


class StepMetrics:
    """Collects steps and turns them into the metrics of a log line: losses of the last step, means over the interval.

    Args:
        count_graphs: Report the number of compiled graphs, which must stop growing after the first epoch.
        processes: Number of processes that train together; each computes about as many frames as this one.
    """

    def __init__(self, *, count_graphs: bool, processes: int = 1) -> None:
        self._count_graphs, self._processes = count_graphs, processes
        self._steps: list[Step] = []
        self._frames = 0
        self._shapes: set[tuple[int, ...]] = set()
        self._started = time.monotonic()

    def add(self, batch: Batch, step: Step) -> None:
        """Records a step and the batch that it trained on."""
        self._steps.append(step)
        self._frames += int(batch.mel_lengths.sum())
        self._shapes.add((*batch.ids.shape[:2], batch.mel.shape[1]))

    def lap(self) -> dict[str, float]:
        """Returns the metrics of the steps since the last lap, of which there is at least one, and starts a new lap.

        Returns:
            `train/<term>`, `weight/<term>` and the learning rate of the last step; `train/objective`, the shares of
            clipped gradients and `train/frames_per_second` over the lap; distinct shapes and graphs of the whole run.
        """
        count, last = len(self._steps), self._steps[-1]
        values = {f"train/{name}": value for name, value in last.loss.terms.items()}
        values |= {f"weight/{name}": weight for name, weight in last.weights.items()}
        values |= {
            "train/loss": last.loss.total,
            "train/objective": sum(step.objective for step in self._steps) / count,
            "train/learning_rate": last.learning_rate,
            "train/gradient_norm": last.clipping.norm,
            "train/clipped_norm_share": sum(step.clipping.clipped_norm for step in self._steps) / count,
            "train/clipped_element_share": sum(step.clipping.clipped_elements for step in self._steps) / count,
            "train/frames_per_second": self._processes * self._frames / (time.monotonic() - self._started),
            "train/distinct_shapes": float(len(self._shapes)),
        }
        if self._count_graphs:
            values["train/compiled_graphs"] = float(compiled_graphs())
        self._steps, self._frames, self._started = [], 0, time.monotonic()
        return values
