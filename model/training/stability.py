"""Numerical stability: gradient clipping, detection of bad steps, and of parameters that explode or vanish."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import nn

from model.config.training import TrainingConfig

MEDIAN_STEPS = 20
"""Number of steps of the running median that a loss is compared with."""

StepStatus = Literal["ok", "skipped", "diverged"]
"""`skipped`: loss or gradient is not finite, so no weight was changed. `diverged`: the loss is far above its best."""


@dataclass(frozen=True, kw_only=True)
class Clipping:
    """Result of clipping one gradient.

    Attributes:
        norm: L2 norm of the whole gradient, after its elements were clipped and before the norm was.
        clipped_elements: Share of elements beyond the limit, 0 to 1.
        clipped_norm: Whether the norm was beyond its limit.
    """

    norm: float
    clipped_elements: float
    clipped_norm: bool


def clip_gradients(model: nn.Module, value: float, norm: float) -> Clipping:
    """Clips each gradient element to +-`value`, then the whole gradient to an L2 norm of `norm`.

    The gradients must be unscaled (free of the loss scale) before.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    # Equal to the infinity norms, which torch computes more slowly on a CPU; NaN stays NaN.
    largest = torch.stack(torch._foreach_max(torch._foreach_abs(gradients)))
    clipped = 0.0
    if bool((largest > value).any()):  # otherwise nothing is clipped, and a pass over all gradients is saved
        beyond = torch.stack([(gradient.abs() > value).sum() for gradient in gradients]).sum()
        clipped = int(beyond) / sum(gradient.numel() for gradient in gradients)
        nn.utils.clip_grad_value_(model.parameters(), value)
    before = float(nn.utils.clip_grad_norm_(model.parameters(), norm))
    return Clipping(norm=before, clipped_elements=clipped, clipped_norm=before > norm)


class DivergenceDetector:
    """Classifies every step by its loss and gradient, and decides when the run is rolled back.

    A step with a loss of `divergence_factor` times the best running median counts as bad although it is finite: weights
    that have diverged rarely become NaN by themselves.

    Attributes:
        consecutive_bad_steps: Number of bad steps since the last good one.
        rollbacks: Number of rollbacks so far.
        best_median: Lowest running median of the loss so far; the first loss before there is one.
        recent_losses: Losses of the last good steps, at most `MEDIAN_STEPS`.
    """

    def __init__(self, settings: TrainingConfig) -> None:
        self.settings = settings
        self.consecutive_bad_steps = 0
        self.rollbacks = 0
        self.best_median: float | None = None
        self.recent_losses: list[float] = []

    def classify(self, loss: float, gradient_norm: float) -> StepStatus:
        """Records a step and returns its status.

        Args:
            loss: Unscheduled objective, before this step's update.
            gradient_norm: L2 norm of the gradient.
        """
        status = self._status(loss, gradient_norm)
        if status != "ok":
            self.consecutive_bad_steps += 1
            return status
        self.consecutive_bad_steps = 0
        self.recent_losses = [*self.recent_losses[1 - MEDIAN_STEPS :], loss]
        if self.best_median is None:
            self.best_median = loss
        elif len(self.recent_losses) == MEDIAN_STEPS:
            self.best_median = min(self.best_median, median(self.recent_losses))
        return status

    def _status(self, loss: float, gradient_norm: float) -> StepStatus:
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return "skipped"
        if self.best_median is not None and loss > self.settings.divergence_factor * self.best_median:
            return "diverged"
        return "ok"

    @property
    def needs_rollback(self) -> bool:
        """Whether `max_skipped_steps` bad steps have followed each other."""
        return self.consecutive_bad_steps >= self.settings.max_skipped_steps

    @property
    def rollbacks_exhausted(self) -> bool:
        """Whether the run has been rolled back as often as `max_rollbacks` allows."""
        return self.rollbacks >= self.settings.max_rollbacks

    @property
    def learning_rate_factor(self) -> float:
        """Factor on the learning rate, lower after each rollback."""
        return self.settings.rollback_rate_factor**self.rollbacks

    def record_rollback(self) -> None:
        """Counts a rollback and starts a new window; the best median is kept, since the run had reached it."""
        self.rollbacks += 1
        self.consecutive_bad_steps = 0
        self.recent_losses = []

    def state_dict(self) -> dict[str, Any]:
        return {
            "consecutive_bad_steps": self.consecutive_bad_steps,
            "rollbacks": self.rollbacks,
            "best_median": self.best_median,
            "recent_losses": self.recent_losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state_dict():
            setattr(self, name, state[name])


class ParameterMonitor:
    """Finds parameters that explode or vanish before they are NaN, by their root mean square at the start of the run.

    Args:
        model: Freshly initialized, before a checkpoint is loaded.
    """

    EXPLODED, VANISHED = 100.0, 1e-3
    """Ratios of a parameter's root mean square to that at the start above and below which it has exploded or vanished;
    for the former, the start counts as at least 1."""

    def __init__(self, model: nn.Module) -> None:
        self._initial = _root_mean_squares(model)
        self._reported: set[tuple[str, str]] = set()

    def check(self, model: nn.Module) -> list[str]:
        """Returns the findings that were not reported before, one line each."""
        found = []
        for name, size in _root_mean_squares(model).items():
            initial = self._initial[name]
            if not math.isfinite(size) or size > self.EXPLODED * max(initial, 1.0):
                kind = "exploded"
            elif initial > 0 and size < self.VANISHED * initial:
                kind = "vanished"
            else:
                continue
            if (name, kind) not in self._reported:
                self._reported.add((name, kind))
                found.append(f"parameter {name} has {kind}: root mean square {size:.3g}, {initial:.3g} at the start")
        return found


def _root_mean_squares(model: nn.Module) -> dict[str, float]:
    """Returns the root mean square of each parameter, by name."""
    names, tensors = zip(*((name, p.detach()) for name, p in model.named_parameters()), strict=True)
    norms = torch._foreach_norm(list(tensors))
    sizes = torch.tensor([tensor.numel() for tensor in tensors]).sqrt()
    return dict(zip(names, (torch.stack(norms).cpu() / sizes).tolist(), strict=True))
