"""Convolutions over time that also run in a two-dimensional, channels-last form, and weight norm on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

INITIAL_DEVIATION = 0.01


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` that keeps the length, and takes (B, C, N) or, for speed, (B, C, 1, N) channels-last.

    On processors the second form is 1.3 to 2 times as fast forwards, and no faster backwards.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, padding_mode: str = "zeros") -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(inputs, outputs, kernel, padding=padding, dilation=dilation, padding_mode=padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return super().forward(x)
        padding = self.padding[0]
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, (padding, padding, 0, 0), mode=self.padding_mode), 0
        return F.conv2d(x, self.weight.unsqueeze(2), self.bias, 1, (0, padding), (1, self.dilation[0]))


class ConvTranspose1d(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` that makes the length `stride` times as long, in both forms of `Conv1d`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        padding = (kernel - stride + 1) // 2
        super().__init__(inputs, outputs, kernel, stride, padding, output_padding=2 * padding + stride - kernel)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return super().forward(x)
        return F.conv_transpose2d(
            x,
            self.weight.unsqueeze(2),
            self.bias,
            (1, self.stride[0]),
            (0, self.padding[0]),
            (0, self.output_padding[0]),
        )


def normed(convolution: nn.Module, deviation: float | None = None) -> nn.Module:
    """The convolution with weight norm, its weights drawn anew with a deviation where one is given."""
    if deviation is not None:
        nn.init.normal_(convolution.weight, 0.0, deviation)
    return weight_norm(convolution)


def to_channels_last(x: Tensor) -> Tensor:
    """(B, C, N) -> (B, C, 1, N) in channels-last memory."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
