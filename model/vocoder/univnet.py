"""UnivNet: noise to waveform by convolutions whose kernels are predicted from the mel (arXiv:2106.07889).

Layer names and shapes are the official ones, so that published weights fit. B batch, M mel bands, S frames,
N = S * hop samples, C channels, K = 3 taps of a predicted kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.vocoder.layers import Conv1d, ConvTranspose1d, normed

SLOPE = 0.2
NOISE_CHANNELS = 64
TAPS = 3
INPUT_KERNEL, OUTER_KERNEL = 5, 7
RESIDUALS = 3
"""Residual pairs of convolutions in a kernel predictor."""
TAIL_FRAMES = 10
"""Silent frames appended when speaking, as published: without them the end of the speech clicks."""


@dataclass(frozen=True)
class UnivNetSize:
    """Dimensions of a generator.

    Attributes:
        channels: Width of the signal's path.
        strides: Of each upsampling; their product is the hop.
        dilations: Of the location-variable blocks after each upsampling.
        hidden: Width of the kernel predictors.
    """

    channels: int
    strides: tuple[int, ...] = (8, 8, 4)
    dilations: tuple[int, ...] = (1, 3, 9, 27)
    hidden: int = 64


VARIANTS = {
    "c16": UnivNetSize(16),
    "c32": UnivNetSize(32),
    "tiny": UnivNetSize(8),
    "xtiny": UnivNetSize(4, dilations=(1, 3), hidden=8),
}
"""c16 and c32 as published; `tiny` and `xtiny` are ours, for small machines and for tests."""


class KernelPredictor(nn.Module):
    """Mel -> a kernel and a bias for every frame and layer.

    Attributes:
        made: Sizes of a frame's kernels as they are made: of layers, inputs, halves, outputs, taps in official weights.
        order: Of those axes as they are used: layer, half, tap, input, output.
    """

    def __init__(self, n_mels: int, channels: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.made, self.order = (layers, channels, 2, channels, TAPS), (0, 2, 4, 1, 3)
        self.input_conv = nn.Sequential(normed(Conv1d(n_mels, hidden, INPUT_KERNEL)), nn.LeakyReLU(SLOPE))
        self.residual_convs = nn.ModuleList(
            nn.Sequential(
                nn.Identity(),  # where the official layout has a dropout of 0: keeps the numbers of the layers
                normed(Conv1d(hidden, hidden, TAPS)),
                nn.LeakyReLU(SLOPE),
                normed(Conv1d(hidden, hidden, TAPS)),
                nn.LeakyReLU(SLOPE),
            )
            for _ in range(RESIDUALS)
        )
        self.kernel_conv = normed(Conv1d(hidden, math.prod(self.made), TAPS))
        self.bias_conv = normed(Conv1d(hidden, layers * 2 * channels, TAPS))

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mel (B, M, S) -> each frame's weights for every layer, those of the signal first, then those of the gate.

        Returns:
            Kernels (layers, 2, B * S, K, C, C), for each tap from input to output, and biases (layers, 2, B * S, 1, C).
        """
        hidden = self.input_conv(mel)
        for block in self.residual_convs:
            hidden = hidden + block(hidden)
        kernels, biases = (conv(hidden).transpose(1, 2).flatten(0, 1) for conv in (self.kernel_conv, self.bias_conv))
        kernels = kernels.unflatten(1, self.made).permute(0, *(axis + 1 for axis in self.order))
        kernels = kernels.flatten(3).unflatten(3, kernels.shape[3:])  # in that order in memory: a copy unless sorted
        biases = biases.unflatten(1, (kernels.shape[1], 2, 1, -1))
        return kernels.movedim(0, 2), biases.movedim(0, 2)

    def sort(self) -> None:
        """Let folded weights make the kernels in the order of their use: no longer the official one, but no copy."""
        rows = torch.arange(math.prod(self.made)).view(self.made).permute(self.order)
        for weights in (self.kernel_conv.weight, self.kernel_conv.bias):
            weights.data = weights.data[rows.flatten()]
        self.made, self.order = tuple(rows.shape), tuple(range(rows.dim()))


class LocationVariableBlock(nn.Module):
    """One upsampling, then gated convolutions with the predicted kernels."""

    def __init__(self, size: UnivNetSize, n_mels: int, stride: int, hop: int) -> None:
        super().__init__()
        channels = size.channels
        self.hop = hop
        self.kernel_predictor = KernelPredictor(n_mels, channels, len(size.dilations), size.hidden)
        self.convt_pre = nn.Sequential(
            nn.LeakyReLU(SLOPE), normed(ConvTranspose1d(channels, channels, 2 * stride, stride))
        )
        self.conv_blocks = nn.ModuleList(
            nn.Sequential(nn.LeakyReLU(SLOPE), normed(Conv1d(channels, channels, TAPS, dilation)), nn.LeakyReLU(SLOPE))
            for dilation in size.dilations
        )

    def forward(self, x: Tensor, mel: Tensor) -> Tensor:
        """x (B, C, n), mel (B, M, S) -> (B, C, n * stride = S * hop)."""
        x = self.convt_pre(x)
        kernels, biases = self.kernel_predictor(mel)
        for block, kernel, bias in zip(self.conv_blocks, kernels, biases, strict=True):
            signal, gate = self._convolve(block(x), kernel, bias)
            x = torch.addcmul(x, signal.sigmoid_(), gate.tanh_())
        return x

    def _convolve(self, x: Tensor, kernels: Tensor, biases: Tensor) -> list[Tensor]:
        """Each frame's stretch of x with that frame's own kernels (2, B * S, K, C, C) -> two results like x.

        One product for each tap and half: windows of all taps would overlap in memory, which batched products do not
        take, and a sigmoid of every other stretch of memory takes five times as long.
        """
        rows = F.pad(x.transpose(1, 2), (0, 0, TAPS // 2, TAPS // 2))  # (B, n + K - 1, C)
        stretches = [
            rows[:, tap : tap + x.shape[2]].reshape(-1, self.hop, x.shape[1]) for tap in range(TAPS)
        ]  # (B * S, hop, C) each
        made = []
        for kernel, bias in zip(kernels, biases, strict=True):
            result = torch.baddbmm(bias, stretches[0], kernel[:, 0])
            for tap in range(1, TAPS):
                result.baddbmm_(stretches[tap], kernel[:, tap])
            made.append(result.view(x.shape[0], -1, x.shape[1]).transpose(1, 2))
        return made


class UnivNet(nn.Module):
    """The generator.

    Attributes:
        hop: Samples that each frame becomes.
        noise_channels: Channels of noise it reads beside the mel.
        tail_frames: Silent frames that it wants after the last one.
    """

    noise_channels = NOISE_CHANNELS
    tail_frames = TAIL_FRAMES

    def __init__(self, size: UnivNetSize, n_mels: int) -> None:
        super().__init__()
        self.size = size
        self.hop = math.prod(size.strides)
        self.conv_pre = normed(Conv1d(NOISE_CHANNELS, size.channels, OUTER_KERNEL, padding_mode="reflect"))
        hops = [math.prod(size.strides[: i + 1]) for i in range(len(size.strides))]
        self.res_stack = nn.ModuleList(
            LocationVariableBlock(size, n_mels, stride, hop) for stride, hop in zip(size.strides, hops, strict=True)
        )
        self.conv_post = nn.Sequential(
            nn.LeakyReLU(SLOPE), normed(Conv1d(size.channels, 1, OUTER_KERNEL, padding_mode="reflect")), nn.Tanh()
        )

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, M, S) log-mel and (B, 64, S) normal noise (drawn where not given) -> (B, 1, N) in [-1, 1]."""
        if noise is None:
            noise = torch.randn(mel.shape[0], NOISE_CHANNELS, mel.shape[2], dtype=mel.dtype, device=mel.device)
        x = self.conv_pre(noise)
        for block in self.res_stack:
            x = block(x, mel)
        return self.conv_post(x)

    @property
    def context_frames(self) -> int:
        """Frames on each side of a frame that its samples can depend on."""
        reach, rate = OUTER_KERNEL // 2, 1
        for stride in self.size.strides:
            reach += 2 / rate
            rate *= stride
            reach += sum((TAPS // 2) * (dilation + 1) for dilation in self.size.dilations) / rate
        predictor = INPUT_KERNEL // 2 + (2 * RESIDUALS + 1) * (TAPS // 2)
        return math.ceil(reach + OUTER_KERNEL // 2 / rate) + predictor
