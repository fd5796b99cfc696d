"""Convolutions over time, and weight norm on them."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

INITIAL_DEVIATION = 0.01


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` that keeps the length."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, padding_mode: str = "zeros") -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(inputs, outputs, kernel, padding=padding, dilation=dilation, padding_mode=padding_mode)


class ConvTranspose1d(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` that makes the length `stride` times as long."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        padding = (kernel - stride + 1) // 2
        super().__init__(inputs, outputs, kernel, stride, padding, output_padding=2 * padding + stride - kernel)


def normed(convolution: nn.Module, deviation: float | None = None) -> nn.Module:
    """The convolution with weight norm, its weights drawn anew with a deviation where one is given."""
    if deviation is not None:
        nn.init.normal_(convolution.weight, 0.0, deviation)
    return weight_norm(convolution)
