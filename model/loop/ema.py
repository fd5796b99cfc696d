"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """Moving average of a model's weights; `decay` 0 follows the raw weights. Early on it averages over fewer steps."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.shadow = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        current = model.state_dict()
        torch._foreach_lerp_([self.shadow[name] for name in current], list(current.values()), 1.0 - decay)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Swap the averaged weights in, and the raw ones back afterwards."""
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
