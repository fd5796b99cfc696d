"""What a study may change, as data: setting -> range, per model size."""

import math
from dataclasses import dataclass
from typing import Any

from model.config.resolution import batch_range, presets

VERSION = 1
"""Part of a study's name: trials of another space do not compare."""


@dataclass(frozen=True)
class Range:
    """An interval to search.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Search on a logarithmic scale.
        step: Grid of whole numbers; 0 searches real numbers.
    """

    low: float
    high: float
    log: bool = False
    step: int = 0

    def suggest(self, trial: Any, name: str) -> float | int:
        """Let an Optuna trial choose a value."""
        if self.step:
            return trial.suggest_int(name, int(self.low), int(self.high), step=self.step)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def contains(self, value: float) -> bool:
        """Whether `value` is one that `suggest` could give."""
        on_grid = not self.step or (value - self.low) % self.step == 0
        return self.low <= value <= self.high and on_grid


WEIGHTS = {"loss.mel_loss_weight": Range(2.5, 5.0)}
"""Loss weights in their safe ranges. They cannot move the objective, which is unweighted."""

LATENT_WEIGHTS = {"loss.kl_loss_weight": Range(0.5, 2.0)}
"""Searched besides where the model has a variational encoder."""

LEARNING_RATE_FACTOR = 3.0
"""The learning rate is searched this far below and above the preset of the size."""


def search_space(size: str, variational: bool = False) -> dict[str, Range]:
    """The ranges of a model size, by dotted setting; `variational` says whether it has a variational encoder."""
    low, high = batch_range(size)
    preset = presets()[0][size]["training"]
    rate, batch = preset["learning_rate"], preset["batch_size"]
    grid = math.gcd((high - low) // 2, batch - low)  # holds the preset's own batch
    return {
        **WEIGHTS,
        **(LATENT_WEIGHTS if variational else {}),
        "training.batch_size": Range(low, high, step=grid),
        "training.learning_rate": Range(rate / LEARNING_RATE_FACTOR, rate * LEARNING_RATE_FACTOR, log=True),
    }
