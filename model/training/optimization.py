"""Optimizer, learning-rate schedule, and the reaction of the learning rate to a plateau."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import torch
from torch import nn

from model.acoustic.model import AcousticModel
from model.config.training import TrainingConfig

RESTARTS = 4
"""Cosines of the schedule `cosine_restarts`."""
RISE = 0.1
"""Share of a learning-rate boost that is its linear rise; the rest is a cosine back to the schedule."""


def make_optimizer(model: AcousticModel, settings: TrainingConfig) -> torch.optim.AdamW:
    """Returns AdamW with parameter groups: no weight decay for biases, norms and embeddings, an own scale for the
    learning rate of the aligner (`learning_rate_scale` of the group).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = settings.weight_decay if parameter.dim() >= 2 and "embedding" not in name else 0.0
        scale = settings.aligner_learning_rate_scale if name.startswith("aligner.") else 1.0
        groups.setdefault((decay, scale), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "learning_rate_scale": scale}
            for (decay, scale), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


def scheduled_learning_rate(step: int, settings: TrainingConfig) -> float:
    """Returns the learning rate of step `step` (0-based): linear warm-up, then constant, one cosine, or `RESTARTS`."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.learning_rate_schedule == "constant":
        return settings.learning_rate
    span = max(settings.max_steps - settings.warmup_steps, 1)
    progress = min((step - settings.warmup_steps) / span, 1.0)
    if settings.learning_rate_schedule == "cosine_restarts" and progress < 1.0:
        progress = (progress * RESTARTS) % 1.0
    floor = settings.final_learning_rate_ratio
    return settings.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


class PlateauScheduler:
    """Changes the learning rate at the first plateau of the objective.

    There is a plateau when, of the last `plateau_patience` steps, the mean of the second half is not below that of the
    first by `plateau_threshold`. The learning rate is then either too high, so that the loss oscillates, or too low. To
    find out, it is divided by `plateau_rate_boost` for half the patience. If the loss falls, it stays divided. If not,
    it rises to `plateau_rate_boost` times the peak and returns to the schedule within `plateau_boost_steps`. Later
    plateaus are ignored.

    Attributes:
        recent: Objectives of the last good steps, at most the patience.
        plateau_objective: Mean objective on the plateau; None before there was one.
        lower_rate_helps: Whether the objective fell at the lower learning rate; None until that is known.
        decided_at: Step at which it was known.
    """

    def __init__(self, settings: TrainingConfig) -> None:
        self.settings = settings
        self.half = max(settings.plateau_patience // 2, 1)
        self.recent: list[float] = []
        self.plateau_objective: float | None = None
        self.lower_rate_helps: bool | None = None
        self.decided_at: int | None = None

    def update(self, step: int, objective: float) -> str:
        """Records a good step and returns a message on the action taken, empty for none.

        No plateau is found during the warm-up, across a restart of the schedule, or so near the end of the run that a
        boost would not fit.
        """
        settings = self.settings
        if not settings.enable_plateau_breaker or self.lower_rate_helps is not None or step < settings.warmup_steps:
            return ""
        if step and scheduled_learning_rate(step, settings) > scheduled_learning_rate(step - 1, settings):
            self.recent = []  # a loss that rises with the learning rate is no plateau
        self.recent = [*self.recent[1 - 2 * self.half :], objective]
        later = fmean(self.recent[-self.half :])
        if self.plateau_objective is None:
            too_late = step + self.half + settings.plateau_boost_steps > settings.max_steps
            if len(self.recent) < 2 * self.half or too_late or self._falls(fmean(self.recent[: self.half]), later):
                return ""
            self.plateau_objective, self.recent = later, []
            return f"the learning rate is divided by {settings.plateau_rate_boost:g} for {self.half} steps as a test"
        if len(self.recent) < self.half:
            return ""
        self.lower_rate_helps, self.decided_at = self._falls(self.plateau_objective, later), step
        self.recent = []
        if self.lower_rate_helps:
            return "the loss falls at the lower learning rate, which is kept"
        return f"a lower learning rate does not help: it rises once, for {settings.plateau_boost_steps} steps"

    def _falls(self, earlier: float, later: float) -> bool:
        return later < (1 - self.settings.plateau_threshold) * earlier

    def learning_rate(self, step: int, scheduled: float) -> float:
        """Returns the learning rate of a step.

        Args:
            step: Number of the step, 0-based.
            scheduled: Learning rate of the schedule alone.
        """
        settings = self.settings
        if self.plateau_objective is None:
            return scheduled
        if self.decided_at is None or self.lower_rate_helps:
            return scheduled / settings.plateau_rate_boost
        done = (step - self.decided_at) / settings.plateau_boost_steps
        if not 0 <= done < 1:
            return scheduled
        shape = done / RISE if done < RISE else (1 + math.cos(math.pi * (done - RISE) / (1 - RISE))) / 2
        peak = settings.plateau_rate_boost * settings.learning_rate
        return scheduled + shape * max(peak - scheduled, 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("recent", "plateau_objective", "lower_rate_helps", "decided_at")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state_dict():
            setattr(self, name, state[name])
