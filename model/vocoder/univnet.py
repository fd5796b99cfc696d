"""UnivNet generator: noise to waveform by convolutions whose kernels are predicted from the mel (arXiv:2106.07889).

Layer names and shapes are the official ones, so that published weights can be loaded. B batch, M mel bands, S frames,
N = S * hop samples, C channels, K = 3 taps of a predicted kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.vocoder.layers import Generator, SameConv1d, UpsamplingConv1d, weight_normed

SLOPE = 0.2
NOISE_CHANNELS = 64
TAPS = 3
INPUT_KERNEL, OUTER_KERNEL = 5, 7
RESIDUALS = 3
"""Residual blocks of two convolutions in a kernel predictor."""
TAIL_FRAMES = 10
"""Silent frames appended at inference, as published; without them the speech ends with a click."""


@dataclass(frozen=True, kw_only=True)
class UnivNetSize:
    """Dimensions of a generator.

    Attributes:
        channels: Channels of the signal.
        strides: Stride of each upsampling layer; their product is the hop.
        dilations: Dilations of the location-variable convolutions after each upsampling layer.
        hidden: Channels of the kernel predictors.
    """

    channels: int
    strides: tuple[int, ...] = (8, 8, 4)
    dilations: tuple[int, ...] = (1, 3, 9, 27)
    hidden: int = 64


VARIANTS = {
    "c16": UnivNetSize(channels=16),
    "c32": UnivNetSize(channels=32),
    "tiny": UnivNetSize(channels=8),
    "xtiny": UnivNetSize(channels=4, dilations=(1, 3), hidden=8),
}
"""c16 and c32 as published; `tiny` is for small machines, `xtiny` for tests."""


class KernelPredictor(nn.Module):
    """Predicts a kernel and a bias for every frame and layer from the mel.

    Attributes:
        layout: Sizes of the axes of a frame's kernels in the output of `kernel_conv`: layers, inputs, halves (signal
            and gate), outputs and taps, as in official weights.
        order: Permutation of these axes to layer, half, tap, input, output, in which they are used.
    """

    layout: tuple[int, ...]
    order: tuple[int, ...]

    def __init__(self, n_mels: int, channels: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.layout, self.order = (layers, channels, 2, channels, TAPS), (0, 2, 4, 1, 3)
        self.input_conv = nn.Sequential(weight_normed(SameConv1d(n_mels, hidden, INPUT_KERNEL)), nn.LeakyReLU(SLOPE))
        self.residual_convs = nn.ModuleList(
            nn.Sequential(
                nn.Identity(),  # a dropout of 0 in the official layout; keeps the indices of the layers
                weight_normed(SameConv1d(hidden, hidden, TAPS)),
                nn.LeakyReLU(SLOPE),
                weight_normed(SameConv1d(hidden, hidden, TAPS)),
                nn.LeakyReLU(SLOPE),
            )
            for _ in range(RESIDUALS)
        )
        self.kernel_conv = weight_normed(SameConv1d(hidden, math.prod(self.layout), TAPS))
        self.bias_conv = weight_normed(SameConv1d(hidden, layers * 2 * channels, TAPS))

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts kernels and biases for every layer, half (signal, gate) and frame of a mel (B, M, S).

        Returns:
            Kernels (layers, 2, B * S, K, C, C), from input to output for each tap, and biases (layers, 2, B * S, 1, C).
        """
        hidden = self.input_conv(mel)
        for block in self.residual_convs:
            hidden = hidden + block(hidden)
        kernels, biases = (conv(hidden).transpose(1, 2).flatten(0, 1) for conv in (self.kernel_conv, self.bias_conv))
        kernels = kernels.unflatten(1, self.layout).permute(0, *(axis + 1 for axis in self.order))
        # Contiguous in that order: a copy, unless `reorder_kernels` has made it the order of prediction.
        kernels = kernels.flatten(3).unflatten(3, kernels.shape[3:])
        biases = biases.unflatten(1, (kernels.shape[1], 2, 1, -1))
        return kernels.movedim(0, 2), biases.movedim(0, 2)

    def reorder_kernels(self) -> None:
        """Permutes folded weights so that kernels are predicted in the order of their use, which saves a copy.

        The weights no longer have the official order afterwards.
        """
        rows = torch.arange(math.prod(self.layout)).view(self.layout).permute(self.order)
        assert self.kernel_conv.bias is not None
        for weights in (self.kernel_conv.weight, self.kernel_conv.bias):
            weights.data = weights.data[rows.flatten()]
        self.layout, self.order = tuple(rows.shape), tuple(range(rows.dim()))


class LocationVariableBlock(nn.Module):
    """Upsampling layer followed by gated convolutions with predicted kernels."""

    def __init__(self, size: UnivNetSize, n_mels: int, stride: int, hop: int) -> None:
        super().__init__()
        channels = size.channels
        self.hop = hop
        self.kernel_predictor = KernelPredictor(n_mels, channels, len(size.dilations), size.hidden)
        self.convt_pre = nn.Sequential(
            nn.LeakyReLU(SLOPE), weight_normed(UpsamplingConv1d(channels, channels, 2 * stride, stride))
        )
        self.conv_blocks = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(SLOPE), weight_normed(SameConv1d(channels, channels, TAPS, dilation)), nn.LeakyReLU(SLOPE)
            )
            for dilation in size.dilations
        )

    def forward(self, x: Tensor, mel: Tensor) -> Tensor:
        """Upsamples x (B, C, n) under a mel (B, M, S) to (B, C, n * stride), where n * stride = S * hop."""
        x = self.convt_pre(x)
        kernels, biases = self.kernel_predictor(mel)
        for block, kernel, bias in zip(self.conv_blocks, kernels, biases, strict=True):
            signal, gate = self._convolve(block(x), kernel, bias)
            x = torch.addcmul(x, signal.sigmoid_(), gate.tanh_())
        return x

    def _convolve(self, x: Tensor, kernels: Tensor, biases: Tensor) -> list[Tensor]:
        """Convolves the samples of each frame of x with the kernels (2, B * S, K, C, C) of that frame.

        Returns signal and gate, each of the shape of x. There is one batched product for each tap and half: windows of
        all taps would overlap in memory, which batched products do not support, and a sigmoid of every second part of a
        joint result takes five times as long.
        """
        rows = F.pad(x.transpose(1, 2), (0, 0, TAPS // 2, TAPS // 2))  # (B, n + K - 1, C)
        segments = [
            rows[:, tap : tap + x.shape[2]].reshape(-1, self.hop, x.shape[1]) for tap in range(TAPS)
        ]  # (B * S, hop, C) each
        halves = []
        for kernel, bias in zip(kernels, biases, strict=True):
            result = torch.baddbmm(bias, segments[0], kernel[:, 0])
            for tap in range(1, TAPS):
                result.baddbmm_(segments[tap], kernel[:, tap])
            halves.append(result.view(x.shape[0], -1, x.shape[1]).transpose(1, 2))
        return halves


class UnivNet(Generator):
    """Generator of UnivNet."""

    noise_channels = NOISE_CHANNELS
    tail_frames = TAIL_FRAMES

    def __init__(self, size: UnivNetSize, n_mels: int) -> None:
        super().__init__()
        self.size = size
        self.hop = math.prod(size.strides)
        self.conv_pre = weight_normed(SameConv1d(NOISE_CHANNELS, size.channels, OUTER_KERNEL, padding_mode="reflect"))
        hops = [math.prod(size.strides[: i + 1]) for i in range(len(size.strides))]
        self.res_stack = nn.ModuleList(
            LocationVariableBlock(size, n_mels, stride, hop) for stride, hop in zip(size.strides, hops, strict=True)
        )
        self.conv_post = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            weight_normed(SameConv1d(size.channels, 1, OUTER_KERNEL, padding_mode="reflect")),
            nn.Tanh(),
        )

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Generates samples (B, 1, N) in [-1, 1] from a log-mel (B, M, S) and standard normal noise (B, 64, S).

        Noise is drawn where none is given.
        """
        if noise is None:
            noise = torch.randn(mel.shape[0], NOISE_CHANNELS, mel.shape[2], dtype=mel.dtype, device=mel.device)
        x = self.conv_pre(noise)
        for block in self.res_stack:
            x = block(x, mel)
        return self.conv_post(x)

    @property
    def context_frames(self) -> int:
        """Frames on each side of a frame that can influence its samples."""
        reach, upsampling = float(OUTER_KERNEL // 2), 1
        for stride in self.size.strides:
            reach += 2 / upsampling
            upsampling *= stride
            reach += sum((TAPS // 2) * (dilation + 1) for dilation in self.size.dilations) / upsampling
        predictor = INPUT_KERNEL // 2 + (2 * RESIDUALS + 1) * (TAPS // 2)
        return math.ceil(reach + OUTER_KERNEL // 2 / upsampling) + predictor
