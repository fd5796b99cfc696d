"""HiFi-GAN: mel to waveform by transposed convolutions and multi-receptive-field fusion (arXiv:2010.05646).

Layer names and shapes are the official ones, so that published weights fit. B batch, M mel bands, S frames,
N = S * hop samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.vocoder.layers import INITIAL_DEVIATION, Conv1d, ConvTranspose1d, normed

SLOPE = 0.1
LAST_SLOPE = 0.01
"""The published generator leaves the slope before its last layer at torch's default."""
OUTER_KERNEL = 7


@dataclass(frozen=True)
class HifiGanSize:
    """Dimensions of a generator.

    Attributes:
        channels: Width after the first layer; every upsampling halves it.
        rates, kernels: Stride and kernel of each upsampling; the product of the strides is the hop.
        resblock_kernels, resblock_dilations: One residual block for each pair, after each upsampling.
        double: Whether each dilated convolution is followed by an undilated one ("ResBlock 1").
    """

    channels: int
    rates: tuple[int, ...]
    kernels: tuple[int, ...]
    resblock_kernels: tuple[int, ...]
    resblock_dilations: tuple[tuple[int, ...], ...]
    double: bool


_DEEP = ((8, 8, 2, 2), (16, 16, 4, 4), (3, 7, 11), ((1, 3, 5),) * 3, True)
_FLAT = ((8, 8, 4), (16, 16, 8), (3, 5, 7), ((1, 2), (2, 6), (3, 12)), False)
VARIANTS = {
    "v1": HifiGanSize(512, *_DEEP),
    "v2": HifiGanSize(128, *_DEEP),
    "v3": HifiGanSize(256, *_FLAT),
    "tiny": HifiGanSize(128, *_FLAT),
    "xtiny": HifiGanSize(16, (8, 8, 4), (16, 16, 8), (3,), ((1, 2),), False),
}
"""v1 to v3 as published; `tiny` is v3 at half the width (minutes on two cores), `xtiny` is for tests."""


class ResidualBlock(nn.Module):
    """Dilated convolutions, each added to its input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], double: bool) -> None:
        super().__init__()
        make = lambda dilation: normed(Conv1d(channels, channels, kernel, dilation), INITIAL_DEVIATION)  # noqa: E731
        dilated = nn.ModuleList(make(dilation) for dilation in dilations)
        self.double = double
        if double:
            self.convs1, self.convs2 = dilated, nn.ModuleList(make(1) for _ in dilations)
        else:
            self.convs = dilated

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """x (B, C, N) and its activation, which blocks side by side share, to the same shape."""
        for number, dilated in enumerate(self.convs1 if self.double else self.convs):
            made = dilated(F.leaky_relu(x, SLOPE) if number else activated)
            if self.double:
                made = self.convs2[number](F.leaky_relu_(made, SLOPE))
            x = made.add_(x)
        return x


class HifiGan(nn.Module):
    """The generator.

    Attributes:
        hop: Samples that each frame becomes.
        noise_channels: Channels of noise it reads beside the mel: none.
        tail_frames: Silent frames that it wants after the last one: none.
    """

    noise_channels = 0
    tail_frames = 0

    def __init__(self, size: HifiGanSize, n_mels: int) -> None:
        super().__init__()
        self.size = size
        self.hop = math.prod(size.rates)
        widths = [size.channels // 2**i for i in range(len(size.rates) + 1)]
        self.conv_pre = normed(Conv1d(n_mels, widths[0], OUTER_KERNEL))
        self.ups = nn.ModuleList(
            normed(ConvTranspose1d(wide, narrow, kernel, rate), INITIAL_DEVIATION)
            for wide, narrow, kernel, rate in zip(widths, widths[1:], size.kernels, size.rates, strict=False)
        )
        shapes = list(zip(size.resblock_kernels, size.resblock_dilations, strict=True))
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilations, size.double) for width in widths[1:] for kernel, dilations in shapes
        )
        self.conv_post = normed(Conv1d(widths[-1], 1, OUTER_KERNEL), INITIAL_DEVIATION)

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, M, S) log-mel -> (B, 1, N) in [-1, 1]."""
        blocks = len(self.size.resblock_kernels)
        x = self.conv_pre(mel)
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu_(x, SLOPE))
            activated = F.leaky_relu(x, SLOPE)
            first, *others = self.resblocks[stage * blocks : (stage + 1) * blocks]
            fused = first(x, activated)
            for block in others:
                fused.add_(block(x, activated))
            x = fused.div_(blocks)
        return torch.tanh(self.conv_post(F.leaky_relu_(x, LAST_SLOPE)))

    @property
    def context_frames(self) -> int:
        """Frames on each side of a frame that its samples can depend on."""
        reach, rate = OUTER_KERNEL // 2, 1
        for up, kernel in zip(self.size.rates, self.size.kernels, strict=True):
            reach += kernel / up / rate
            rate *= up
            widest = max(
                sum((width - 1) / 2 * (dilation + self.size.double) for dilation in dilations)
                for width, dilations in zip(self.size.resblock_kernels, self.size.resblock_dilations, strict=True)
            )
            reach += widest / rate
        return math.ceil(reach + OUTER_KERNEL // 2 / rate)
