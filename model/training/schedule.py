"""Learning rate as a pure function of the step: finite and positive at every step, so a resumed run needs no state."""

from __future__ import annotations

import math

from model.config.schema import TrainingConfig

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
