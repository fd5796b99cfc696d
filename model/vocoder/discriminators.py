"""Discriminators of HiFi-GAN and UnivNet, with the official names and shapes.

Each head returns scores (B, any) and its feature maps, the activations of all of its layers. B batch, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

HeadOutput = tuple[Tensor, list[Tensor]]
"""Scores and feature maps of one head."""
Norm = Callable[[nn.Module], nn.Module]
"""`weight_norm` or `spectral_norm`."""


class _Head(nn.Module):
    """Convolutions with a leaky ReLU after each but the last."""

    def __init__(self, convs: Iterable[nn.Module], post: nn.Module, slope: float, norm: Norm = weight_norm) -> None:
        super().__init__()
        self.slope = slope
        self.convs = nn.ModuleList(norm(conv) for conv in convs)
        self.conv_post = norm(post)

    def score(self, x: Tensor) -> HeadOutput:
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.slope)
            features.append(x)
        x = self.conv_post(x)
        return x.flatten(1), [*features, x]


class PeriodHead(_Head):
    """Head on the waveform folded to (N / period, period), whose convolutions span every `period`-th sample."""

    def __init__(self, period: int, channels: tuple[int, ...], slope: float) -> None:
        strides = [3] * (len(channels) - 1) + [1]
        convs = [
            nn.Conv2d(inputs, outputs, (5, 1), (stride, 1), (2, 0))
            for inputs, outputs, stride in zip((1, *channels), channels, strides, strict=False)
        ]
        super().__init__(convs, nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)), slope)
        self.period = period

    def forward(self, samples: Tensor) -> HeadOutput:
        """Returns scores and feature maps of samples (B, 1, N)."""
        padded = F.pad(samples, (0, -samples.shape[2] % self.period), mode="reflect")
        return self.score(padded.unflatten(2, (-1, self.period)))


class ScaleHead(_Head):
    """Head on the waveform at one sample rate, with grouped convolutions."""

    SHAPES = (  # inputs, outputs, kernel, stride, groups
        (1, 128, 15, 1, 1),
        (128, 128, 41, 2, 4),
        (128, 256, 41, 2, 16),
        (256, 512, 41, 4, 16),
        (512, 1024, 41, 4, 16),
        (1024, 1024, 41, 1, 16),
        (1024, 1024, 5, 1, 1),
    )

    def __init__(self, norm: Norm) -> None:
        convs = [
            nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
            for inputs, outputs, kernel, stride, groups in self.SHAPES
        ]
        super().__init__(convs, nn.Conv1d(1024, 1, 3, padding=1), 0.1, norm)

    def forward(self, samples: Tensor) -> HeadOutput:
        """Returns scores and feature maps of samples (B, 1, N)."""
        return self.score(samples)


class ResolutionHead(_Head):
    """Head on the magnitude spectrogram of one resolution (n_fft, hop, window).

    The window is rectangular, as published.
    """

    window: Tensor

    def __init__(self, resolution: tuple[int, int, int], channels: int, slope: float) -> None:
        wide = [nn.Conv2d(1, channels, (3, 9), padding=(1, 4))]
        wide += [nn.Conv2d(channels, channels, (3, 9), (1, 2), (1, 4)) for _ in range(3)]
        wide.append(nn.Conv2d(channels, channels, (3, 3), padding=(1, 1)))
        super().__init__(wide, nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)), slope)
        self.resolution = resolution
        self.register_buffer("window", torch.ones(resolution[2]), persistent=False)

    def forward(self, samples: Tensor) -> HeadOutput:
        """Returns scores and feature maps of samples (B, 1, N)."""
        n_fft, hop, window = self.resolution
        side = (n_fft - hop) // 2
        with torch.autocast(samples.device.type, enabled=False):
            padded = F.pad(samples.float(), (side, side), mode="reflect")[:, 0]
            spectrum = torch.stft(padded, n_fft, hop, window, self.window, center=False, return_complex=True)
            magnitudes = spectrum.abs()
        return self.score(magnitudes[:, None])


class _MultiHead(nn.Module):
    """Discriminator of several heads."""

    def __init__(self, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(heads)

    def forward(self, samples: Tensor) -> list[HeadOutput]:
        """Returns scores and feature maps of each head for samples (B, 1, N)."""
        return [head(samples) for head in self.discriminators]


class MultiPeriodDiscriminator(_MultiHead):
    """Discriminator with heads of several periods (HiFi-GAN)."""

    PERIODS = (2, 3, 5, 7, 11)

    def __init__(self, channels: tuple[int, ...], slope: float, periods: tuple[int, ...] = PERIODS) -> None:
        super().__init__(PeriodHead(period, channels, slope) for period in periods)


class MultiScaleDiscriminator(_MultiHead):
    """Discriminator with heads at the sample rate, a half and a quarter of it; the first has spectral norm."""

    def __init__(self) -> None:
        super().__init__([ScaleHead(spectral_norm), ScaleHead(weight_norm), ScaleHead(weight_norm)])
        self.meanpool = nn.AvgPool1d(4, 2, padding=2)

    def forward(self, samples: Tensor) -> list[HeadOutput]:
        outputs = []
        for index, head in enumerate(self.discriminators):
            samples = self.meanpool(samples) if index else samples
            outputs.append(head(samples))
        return outputs


class MultiResolutionDiscriminator(_MultiHead):
    """Discriminator with heads of several STFT resolutions (UnivNet)."""

    RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))

    def __init__(
        self, channels: int = 32, slope: float = 0.2, resolutions: tuple[tuple[int, int, int], ...] = RESOLUTIONS
    ) -> None:
        super().__init__(ResolutionHead(resolution, channels, slope) for resolution in resolutions)


def discriminate(discriminators: nn.ModuleDict, samples: Tensor) -> list[HeadOutput]:
    """Returns scores and feature maps of every head of every discriminator for samples (B, 1, N)."""
    return [output for discriminator in discriminators.values() for output in discriminator(samples)]


def discriminate_pair(
    discriminators: nn.ModuleDict, recorded: Tensor, generated: Tensor
) -> tuple[list[HeadOutput], list[HeadOutput]]:
    """Returns scores and feature maps of recorded and of generated samples (B, 1, N) from one pass.

    A single pass computes the norms of the weights once and makes one power iteration of the spectral norm.
    """
    size = len(recorded)
    both = discriminate(discriminators, torch.cat((recorded, generated)))
    real = [(score[:size], [feature[:size] for feature in features]) for score, features in both]
    fake = [(score[size:], [feature[size:] for feature in features]) for score, features in both]
    return real, fake
