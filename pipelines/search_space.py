"""Search space of a study: the range of each searched setting, per model size."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.config.resolution import batch_range, presets

if TYPE_CHECKING:
    import optuna

VERSION = 1
"""Part of a study's name: trials of different search spaces are not comparable."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Interval of a setting.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Search on a logarithmic scale.
        step: Step of a grid of integers; 0 for real numbers.
    """

    low: float
    high: float
    log: bool = False
    step: int = 0

    def suggest(self, trial: "optuna.Trial", name: str) -> float | int:
        """Returns the value that an Optuna trial suggests."""
        if self.step:
            return trial.suggest_int(name, int(self.low), int(self.high), step=self.step)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def contains(self, value: float) -> bool:
        """Whether `suggest` could return `value`."""
        on_grid = not self.step or (value - self.low) % self.step == 0
        return self.low <= value <= self.high and on_grid


WEIGHTS = {"loss.mel_loss_weight": Range(low=2.5, high=5.0)}
"""Loss weights in their safe ranges. They do not scale the objective, which is unweighted."""

LATENT_WEIGHTS = {"loss.kl_loss_weight": Range(low=0.5, high=2.0)}
"""Searched in addition if the model has a variational encoder."""

LEARNING_RATE_FACTOR = 3.0
"""The learning rate is searched from the preset of the size divided by this factor to the preset times it."""


def search_space(size: str, variational: bool = False) -> dict[str, Range]:
    """Returns the ranges of a model size by dotted setting; `variational`: the model has a variational encoder."""
    low, high = batch_range(size)
    preset = presets()[0][size]["training"]
    learning_rate, batch_size = preset["learning_rate"], preset["batch_size"]
    grid = math.gcd((high - low) // 2, batch_size - low)  # so that the preset's batch size is on the grid
    return {
        **WEIGHTS,
        **(LATENT_WEIGHTS if variational else {}),
        "training.batch_size": Range(low=low, high=high, step=grid),
        "training.learning_rate": Range(
            low=learning_rate / LEARNING_RATE_FACTOR, high=learning_rate * LEARNING_RATE_FACTOR, log=True
        ),
    }
