"""Optimizer, learning-rate schedule and plateau breaker."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import torch
from torch import nn

from model.acoustic.model import AcousticModel
from model.config.training import TrainingConfig


def make_optimizer(model: AcousticModel, settings: TrainingConfig) -> torch.optim.AdamW:
    """AdamW in groups: weight decay spares biases, norms and embeddings, and the aligner has its own rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = settings.weight_decay if parameter.dim() >= 2 and "embedding" not in name else 0.0
        scale = settings.aligner_learning_rate_scale if name.startswith("aligner.") else 1.0
        groups.setdefault((decay, scale), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": items, "weight_decay": decay, "rate_scale": scale} for (decay, scale), items in groups.items()],
        betas=(0.9, 0.98),
        fused=True,
    )


RESTARTS = 4


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Rate of step `step` (0-based): a linear warm-up, then flat, one cosine, or `RESTARTS` cosines."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.learning_rate_schedule == "constant":
        return config.learning_rate
    span = max(config.max_steps - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / span, 1.0)
    if config.learning_rate_schedule == "cosine_restarts" and progress < 1.0:
        progress = (progress * RESTARTS) % 1.0
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


RISE = 0.1
"""Share of the boost that is its linear rise; the rest is a cosine back to the schedule."""


class PlateauBreaker:
    """Watches the objective of `plateau_patience` steps: on a plateau, the mean of their second half is not below that
    of their first by `plateau_threshold`.

    A loss stands still because the rate is too high, so that it jumps about, or too low, so that it crawls or is
    caught. So for half the patience the rate is divided by `plateau_rate_boost`. If the loss falls now, the rate was
    too high, and stays divided. If not, it rises to `plateau_rate_boost` times the peak and falls back in
    `plateau_boost_steps`. Once: a second plateau is the end of what this remedy can do.
    """

    def __init__(self, settings: TrainingConfig) -> None:
        self.settings = settings
        self.half = max(settings.plateau_patience // 2, 1)
        self.recent: list[float] = []
        self.height: float | None = None
        self.lowered: bool | None = None
        self.decided_at: int | None = None

    def update(self, step: int, objective: float) -> str:
        """Take in one good step; what it led to, or ''. Warm-up, a restart of the schedule, and an end too near to
        recover in, are no plateau.
        """
        settings = self.settings
        if not settings.enable_plateau_breaker or self.lowered is not None or step < settings.warmup_steps:
            return ""
        if step and learning_rate(step, settings) > learning_rate(step - 1, settings):
            self.recent = []  # a loss that rises with the rate does not stand still
        self.recent = [*self.recent[1 - 2 * self.half :], objective]
        later = fmean(self.recent[-self.half :])
        if self.height is None:
            too_late = step + self.half + settings.plateau_boost_steps > settings.max_steps
            if len(self.recent) < 2 * self.half or too_late or self._falls(fmean(self.recent[: self.half]), later):
                return ""
            self.height, self.recent = later, []
            return f"the learning rate is divided by {settings.plateau_rate_boost:g} for {self.half} steps, to see why"
        if len(self.recent) < self.half:
            return ""
        self.lowered, self.decided_at, self.recent = self._falls(self.height, later), step, []
        if self.lowered:
            return "the loss falls at the lower learning rate, which is kept"
        return f"a lower learning rate is no cure: it rises once, for {settings.plateau_boost_steps} steps"

    def _falls(self, earlier: float, later: float) -> bool:
        return later < (1 - self.settings.plateau_threshold) * earlier

    def rate(self, step: int, scheduled: float) -> float:
        """The learning rate of a step, where the schedule alone would have `scheduled`."""
        settings = self.settings
        if self.height is None:
            return scheduled
        if self.decided_at is None or self.lowered:
            return scheduled / settings.plateau_rate_boost
        done = (step - self.decided_at) / settings.plateau_boost_steps
        if not 0 <= done < 1:
            return scheduled
        shape = done / RISE if done < RISE else (1 + math.cos(math.pi * (done - RISE) / (1 - RISE))) / 2
        peak = settings.plateau_rate_boost * settings.learning_rate
        return scheduled + shape * max(peak - scheduled, 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("recent", "height", "lowered", "decided_at")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state_dict():
            setattr(self, name, state[name])
