"""What keeps a run alive: gradients are clipped, bad steps are skipped and counted, sick parameters are noticed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from model.config.training import TrainingConfig

WINDOW = 20
"""Steps of the running median that a loss is judged by."""


@dataclass(frozen=True)
class Clipping:
    """What clipping did to one gradient.

    Attributes:
        norm: Of the whole gradient, after its elements were clipped, before the norm was.
        clipped_elements: Share of elements beyond the value.
        clipped_norm: Whether the norm was beyond its bound.
    """

    norm: float
    clipped_elements: float
    clipped_norm: bool


def clip_gradients(model: nn.Module, value: float, norm: float) -> Clipping:
    """Clip each gradient element to +-`value`, then all to a joint `norm`. Scaled gradients must be unscaled before."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    largest = torch.stack(torch._foreach_norm(gradients, torch.inf))
    clipped = 0.0
    if bool((largest > value).any()):  # else there is nothing to clip, and a pass over all gradients is saved
        beyond = torch.stack([(gradient.abs() > value).sum() for gradient in gradients]).sum()
        clipped = int(beyond) / sum(gradient.numel() for gradient in gradients)
        nn.utils.clip_grad_value_(model.parameters(), value)
    before = float(nn.utils.clip_grad_norm_(model.parameters(), norm))
    return Clipping(before, clipped, before > norm)


class StepGuard:
    """Judges every step by its loss and gradient, and says when the run must go back.

    A step that is not finite must be skipped. A finite one whose loss is `divergence_factor` times the best running
    median counts as bad too: weights that have left the reach of the optimiser rarely become NaN by themselves.
    """

    def __init__(self, settings: TrainingConfig) -> None:
        self.settings = settings
        self.bad_in_a_row = 0
        self.rollbacks = 0
        self.best: float | None = None
        self.recent: list[float] = []

    def judge(self, loss: float, norm: float) -> str:
        """'' for a good step; `skipped` for one that is not finite, `diverged` for one that went too far.

        Args:
            loss: The objective, before this step's update.
            norm: Of the gradient.
        """
        verdict = self._verdict(loss, norm)
        if verdict:
            self.bad_in_a_row += 1
            return verdict
        self.bad_in_a_row = 0
        self.recent = [*self.recent[1 - WINDOW :], loss]
        if self.best is None:
            self.best = loss
        elif len(self.recent) == WINDOW:
            self.best = min(self.best, median(self.recent))
        return ""

    def _verdict(self, loss: float, norm: float) -> str:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "skipped"
        if self.best is not None and loss > self.settings.divergence_factor * self.best:
            return "diverged"
        return ""

    @property
    def must_go_back(self) -> bool:
        return self.bad_in_a_row >= self.settings.max_skipped_steps

    @property
    def exhausted(self) -> bool:
        """Whether going back was tried as often as is allowed."""
        return self.rollbacks >= self.settings.max_rollbacks

    @property
    def rate_factor(self) -> float:
        """Factor on the learning rate, lower after each roll-back."""
        return self.settings.rollback_rate_factor**self.rollbacks

    def went_back(self) -> None:
        self.rollbacks += 1
        self.bad_in_a_row = 0
        self.recent = []

    def state_dict(self) -> dict[str, Any]:
        return {
            "bad_in_a_row": self.bad_in_a_row,
            "rollbacks": self.rollbacks,
            "best": self.best,
            "recent": self.recent,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state_dict():
            setattr(self, name, state[name])


class ParameterWatch:
    """Notices parameters that explode or vanish before they are NaN, by their size at the start of the run.

    Args:
        model: Freshly initialised, before a checkpoint is loaded.
    """

    EXPLODED, VANISHED = 100.0, 1e-3
    """Factors on the root mean square at the start (at least 1 where exploding is judged)."""

    def __init__(self, model: nn.Module) -> None:
        self._start = _root_mean_squares(model)
        self._told: set[tuple[str, str]] = set()

    def check(self, model: nn.Module) -> list[str]:
        """Findings that were not told before, one line each."""
        found = []
        for name, size in _root_mean_squares(model).items():
            start = self._start[name]
            if not math.isfinite(size) or size > self.EXPLODED * max(start, 1.0):
                kind = "exploded"
            elif start > 0 and size < self.VANISHED * start:
                kind = "vanished"
            else:
                continue
            if (name, kind) not in self._told:
                self._told.add((name, kind))
                found.append(f"parameter {name} has {kind}: root mean square {size:.3g}, {start:.3g} at the start")
        return found


def _root_mean_squares(model: nn.Module) -> dict[str, float]:
    names, tensors = zip(*((name, p.detach()) for name, p in model.named_parameters()), strict=True)
    norms: list[Tensor] = torch._foreach_norm(list(tensors))
    sizes = torch.tensor([tensor.numel() for tensor in tensors]).sqrt()
    return dict(zip(names, (torch.stack(norms).cpu() / sizes).tolist(), strict=True))
