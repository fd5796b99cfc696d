"""Building blocks of the vocoder generators: convolutions over time with weight norm, and the generator's interface."""

from __future__ import annotations

from typing import Literal, TypeVar

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

INITIAL_STD = 0.01
"""Standard deviation of initial weights, where HiFi-GAN sets one."""
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class SameConv1d(nn.Conv1d):
    """Convolution of odd kernel size that keeps the length: (B, C, N) -> (B, C', N)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, dilation: int = 1, padding_mode: PaddingMode = "zeros"
    ) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(inputs, outputs, kernel, padding=padding, dilation=dilation, padding_mode=padding_mode)
        self.side_padding = padding


class UpsamplingConv1d(nn.ConvTranspose1d):
    """Transposed convolution that multiplies the length by its stride: (B, C, N) -> (B, C', N * stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        padding = (kernel - stride + 1) // 2
        super().__init__(inputs, outputs, kernel, stride, padding, output_padding=2 * padding + stride - kernel)
        self.side_padding = padding


Convolution = TypeVar("Convolution", SameConv1d, UpsamplingConv1d)


def weight_normed(convolution: Convolution, std: float | None = None) -> Convolution:
    """Adds weight norm to a convolution and returns it; `std` initializes its weights from a normal distribution."""
    if std is not None:
        nn.init.normal_(convolution.weight, 0.0, std)
    weight_norm(convolution)
    return convolution


class Generator(nn.Module):
    """Base class of the generators: log-mel to waveform.

    Attributes:
        hop: Samples per mel frame.
        noise_channels: Channels of the noise input; 0 where there is none.
        tail_frames: Silent frames to append to the mel at inference.
    """

    hop: int
    noise_channels: int = 0
    tail_frames: int = 0

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Generates samples (B, 1, S * hop) in [-1, 1] from a log-mel (B, M, S) and noise (B, noise_channels, S)."""
        raise NotImplementedError

    @property
    def context_frames(self) -> int:
        """Frames on each side of a frame that can influence its samples."""
        raise NotImplementedError
