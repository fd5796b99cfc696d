"""HiFi-GAN generator: transposed convolutions and multi-receptive-field fusion (arXiv:2010.05646).

Layer names and shapes are the official ones, so that published weights can be loaded. B batch, M mel bands, S frames,
N = S * hop samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.vocoder.layers import INITIAL_STD, Generator, SameConv1d, UpsamplingConv1d, weight_normed

SLOPE = 0.1
LAST_SLOPE = 0.01
"""Slope before the last layer: the published generator uses the default of torch there."""
OUTER_KERNEL = 7


@dataclass(frozen=True, kw_only=True)
class HifiGanSize:
    """Dimensions of a generator.

    Attributes:
        channels: Channels after the first layer; every upsampling layer halves them.
        strides, kernels: Stride and kernel size of each upsampling layer; the product of the strides is the hop.
        resblock_kernels, resblock_dilations: One residual block for each pair, after each upsampling layer.
        paired: Whether each dilated convolution is followed by an undilated one ("ResBlock 1").
    """

    channels: int
    strides: tuple[int, ...]
    kernels: tuple[int, ...]
    resblock_kernels: tuple[int, ...]
    resblock_dilations: tuple[tuple[int, ...], ...]
    paired: bool


_V1 = HifiGanSize(
    channels=512,
    strides=(8, 8, 2, 2),
    kernels=(16, 16, 4, 4),
    resblock_kernels=(3, 7, 11),
    resblock_dilations=((1, 3, 5),) * 3,
    paired=True,
)
_V3 = HifiGanSize(
    channels=256,
    strides=(8, 8, 4),
    kernels=(16, 16, 8),
    resblock_kernels=(3, 5, 7),
    resblock_dilations=((1, 2), (2, 6), (3, 12)),
    paired=False,
)
VARIANTS = {
    "v1": _V1,
    "v2": replace(_V1, channels=128),
    "v3": _V3,
    "tiny": replace(_V3, channels=128),
    "xtiny": replace(_V3, channels=16, resblock_kernels=(3,), resblock_dilations=((1, 2),)),
}
"""v1 to v3 as published; `tiny` is v3 at half the width (minutes on two cores), `xtiny` is for tests."""


class ResidualBlock(nn.Module):
    """Dilated convolutions with residual connections."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], paired: bool) -> None:
        super().__init__()

        def convolution(dilation: int) -> SameConv1d:
            return weight_normed(SameConv1d(channels, channels, kernel, dilation), INITIAL_STD)

        dilated = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.paired = paired
        if paired:
            self.convs1, self.convs2 = dilated, nn.ModuleList(convolution(1) for _ in dilations)
        else:
            self.convs = dilated

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """Transforms x (B, C, N); `activated` is its activation, which parallel blocks share."""
        for number, dilated in enumerate(self.convs1 if self.paired else self.convs):
            residual = dilated(F.leaky_relu(x, SLOPE) if number else activated)
            if self.paired:
                residual = self.convs2[number](F.leaky_relu_(residual, SLOPE))
            x = residual.add_(x)
        return x


class HifiGan(Generator):
    """Generator of HiFi-GAN. It has no noise input."""

    def __init__(self, size: HifiGanSize, n_mels: int) -> None:
        super().__init__()
        self.size = size
        self.hop = math.prod(size.strides)
        widths = [size.channels // 2**i for i in range(len(size.strides) + 1)]
        self.conv_pre = weight_normed(SameConv1d(n_mels, widths[0], OUTER_KERNEL))
        self.ups = nn.ModuleList(
            weight_normed(UpsamplingConv1d(wide, narrow, kernel, stride), INITIAL_STD)
            for wide, narrow, kernel, stride in zip(widths[:-1], widths[1:], size.kernels, size.strides, strict=True)
        )
        shapes = list(zip(size.resblock_kernels, size.resblock_dilations, strict=True))
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilations, size.paired) for width in widths[1:] for kernel, dilations in shapes
        )
        self.conv_post = weight_normed(SameConv1d(widths[-1], 1, OUTER_KERNEL), INITIAL_STD)

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Generates samples (B, 1, N) in [-1, 1] from a log-mel (B, M, S)."""
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
        """Frames on each side of a frame that can influence its samples."""
        reach, upsampling = float(OUTER_KERNEL // 2), 1
        for stride, kernel in zip(self.size.strides, self.size.kernels, strict=True):
            reach += kernel / stride / upsampling
            upsampling *= stride
            widest = max(
                sum((width - 1) / 2 * (dilation + self.size.paired) for dilation in dilations)
                for width, dilations in zip(self.size.resblock_kernels, self.size.resblock_dilations, strict=True)
            )
            reach += widest / upsampling
        return math.ceil(reach + OUTER_KERNEL // 2 / upsampling)
