"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """Exponential moving average of a model's weights, with a decay that warms up; `decay` 0 follows the raw weights.

    `torch.optim.swa_utils.AveragedModel` is no substitute: its first update copies the weights instead of averaging
    them, so results would change; it deep-copies the model, which breaks weight-normalized vocoders (copies share the
    parametrized class, and folding one copy unwraps the other); and it prefixes every tensor name with `module.`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the weights after step `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        current = model.state_dict()
        torch._foreach_lerp_([self.shadow[name] for name in current], list(current.values()), 1.0 - decay)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Loads the averaged weights into the model for the duration of the block, and restores the raw ones."""
        raw = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.shadow)
        try:
            yield
        finally:
            model.load_state_dict(raw)

    def state_dict(self) -> dict[str, Tensor]:
        return self.shadow

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.shadow = {name: state[name].to(old.device, copy=True) for name, old in self.shadow.items()}
