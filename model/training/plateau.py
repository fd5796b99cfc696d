"""Leaves a plateau: notices that the loss has stopped falling, and answers once with a rise of the learning rate."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

from model.config.schema import TrainingConfig

RISE = 0.1
"""Share of the boost that is its linear rise; the rest is a cosine back to the schedule."""


class PlateauBreaker:
    """Watches the objective of `plateau_patience` steps; when its later half is no better than its earlier, it raises
    the rate to `plateau_rate_boost` times the peak for `plateau_boost_steps`. Once: a second plateau is the end of what
    this remedy can do.
    """

    def __init__(self, settings: TrainingConfig) -> None:
        self.settings = settings
        self.triggered_at: int | None = None
        self.recent: list[float] = []

    def update(self, step: int, objective: float) -> bool:
        """Take in one good step; True when it completes a plateau. Warm-up, and an end too near to recover in, never
        count.
        """
        settings = self.settings
        if not settings.enable_plateau_breaker or self.triggered_at is not None or step < settings.warmup_steps:
            return False
        self.recent = [*self.recent[1 - settings.plateau_patience :], objective]
        half = settings.plateau_patience // 2
        if len(self.recent) < settings.plateau_patience or step + settings.plateau_boost_steps > settings.max_steps:
            return False
        earlier, later = fmean(self.recent[:half]), fmean(self.recent[-half:])
        if later < (1 - settings.plateau_threshold) * earlier:
            return False
        self.triggered_at, self.recent = step, []
        return True

    def rate(self, step: int, scheduled: float) -> float:
        """The learning rate of a step, at least the scheduled one."""
        if self.triggered_at is None:
            return scheduled
        done = (step - self.triggered_at) / self.settings.plateau_boost_steps
        if not 0 <= done < 1:
            return scheduled
        shape = done / RISE if done < RISE else (1 + math.cos(math.pi * (done - RISE) / (1 - RISE))) / 2
        peak = self.settings.plateau_rate_boost * self.settings.learning_rate
        return scheduled + shape * max(peak - scheduled, 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"triggered_at": self.triggered_at, "recent": self.recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.triggered_at, self.recent = state["triggered_at"], list(state["recent"])
