"""Vocos generator: ConvNeXt blocks at frame rate, and an inverse STFT instead of upsampling (arXiv:2306.00814).

Three parts: the input layer and the backbone of ConvNeXt blocks (`Backbone`), and a head that predicts every frame's
spectrum and inverts it. The published head predicts magnitude and phase (`InverseStftHead`); layer names and shapes are
the official ones, so that published weights can be loaded. That of the small variants corrects the magnitudes that fit
the mel, and continues their phases from frame to frame (`ContinuedPhaseHead`), because phases are hard to learn in
minutes. B batch, M mel bands, S frames, D width, K = n_fft / 2 + 1 frequencies, N = S * hop samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.audio import MEL_FLOOR
from model.audio.griffin_lim import overlap_add
from model.audio.inversion import MelInverter, continued_spectrum
from model.config.data import AudioConfig
from model.vocoder.layers import Generator

KERNEL = 7
EPSILON = 1e-6
INITIAL_STD = 0.02
MAX_MAGNITUDE = 100.0
"""Largest magnitude of a predicted spectrum, as published; keeps a diverging network finite."""


@dataclass(frozen=True, kw_only=True)
class VocosSize:
    """Dimensions of a generator.

    Attributes:
        width: Channels between the blocks.
        inner_width: Channels inside a block.
        blocks: Number of ConvNeXt blocks.
        n_fft, hop: Length of the predicted frames in samples, and their distance.
        predicts_phases: Whether phases are predicted, as published, instead of continued from frame to frame.
    """

    width: int
    inner_width: int
    blocks: int
    n_fft: int = 1024
    hop: int = 256
    predicts_phases: bool = True


VARIANTS = {
    "full": VocosSize(width=512, inner_width=1536, blocks=8),
    "small": VocosSize(width=256, inner_width=768, blocks=6, predicts_phases=False),
    "tiny": VocosSize(width=192, inner_width=576, blocks=4, predicts_phases=False),
    "xtiny": VocosSize(width=16, inner_width=32, blocks=1),
}
"""`full` as published; `small` and `tiny` are for small machines, `xtiny` is for tests."""


class ConvNextBlock(nn.Module):
    """Depthwise convolution over time, then two layers over the channels, with a scaled residual connection."""

    def __init__(self, width: int, inner_width: int, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.pwconv1 = nn.Linear(width, inner_width)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(inner_width, width)
        self.gamma = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Transforms x (B, S, D)."""
        mixed = self.norm(self.dwconv(x.transpose(1, 2)).transpose(1, 2))
        return torch.addcmul(x, self.gamma, self.pwconv2(self.act(self.pwconv1(mixed))))


class Backbone(nn.Module):
    """Input layer and ConvNeXt blocks, which keep the frame rate."""

    def __init__(self, size: VocosSize, n_mels: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(n_mels, size.width, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(size.width, eps=EPSILON)
        self.convnext = nn.ModuleList(
            ConvNextBlock(size.width, size.inner_width, 1 / size.blocks) for _ in range(size.blocks)
        )
        self.final_layer_norm = nn.LayerNorm(size.width, eps=EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, mel: Tensor) -> Tensor:
        """Encodes a log-mel (B, M, S) as (B, S, D)."""
        x = self.norm(self.embed(mel).transpose(1, 2))
        for block in self.convnext:
            x = block(x)
        return self.final_layer_norm(x)


class InverseStftHead(nn.Module):
    """Predicts log-magnitude and phase of every frame and inverts them to samples."""

    def __init__(self, size: VocosSize) -> None:
        super().__init__()
        self.n_fft, self.hop = size.n_fft, size.hop
        self.out = nn.Linear(size.width, size.n_fft + 2)

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns magnitudes and phases (B, S, K) of an encoding (B, S, D), in float32."""
        log_magnitude, phase = self.out(x).float().chunk(2, dim=-1)
        return log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase

    def magnitudes(self, x: Tensor, mel: Tensor) -> Tensor:
        """Returns magnitudes (B, S, K) of an encoding (B, S, D), in float32; the mel is not needed."""
        return self.predict(x)[0]

    def forward(self, x: Tensor, mel: Tensor) -> Tensor:
        """Generates samples (B, S * hop) from an encoding (B, S, D), in float32."""
        magnitude, phase = self.predict(x)
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())  # faster than `polar`
        return _invert(spectrum, self.n_fft, self.hop)


class ContinuedPhaseHead(nn.Module):
    """Predicts factors on the magnitudes that fit the mel, and continues phases from frame to frame.

    The magnitudes that fit the mel are those of Griffin-Lim, so that an untrained head speaks already. The network
    learns what the mel bands do not resolve: harmonics, and the frequencies above the highest band.
    """

    def __init__(self, size: VocosSize, audio: AudioConfig) -> None:
        super().__init__()
        self.n_fft, self.hop = size.n_fft, size.hop
        self.out = nn.Linear(size.width, size.n_fft // 2 + 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.inverter = MelInverter(audio, iterations=0, momentum=0.0)

    def magnitudes(self, x: Tensor, mel: Tensor) -> Tensor:
        """Returns magnitudes (B, S, K) of an encoding (B, S, D) and its log-mel (B, M, S), in float32."""
        factors = self.out(x).float().exp()
        fitted = self.inverter.magnitudes(mel.transpose(1, 2).float())
        fitted = nn.functional.pad(fitted, (0, factors.shape[-1] - fitted.shape[-1])).clamp(min=MEL_FLOOR)
        return (factors * fitted).clamp(max=MAX_MAGNITUDE)

    def forward(self, x: Tensor, mel: Tensor) -> Tensor:
        """Generates samples (B, S * hop) from an encoding (B, S, D) and its log-mel (B, M, S), in float32.

        The phases of each signal start anew, and have no gradient.
        """
        magnitudes = self.magnitudes(x, mel)
        spectra = [continued_spectrum(one, self.n_fft, self.hop)[0] for one in magnitudes]
        return _invert(torch.stack(spectra), self.n_fft, self.hop)


def _invert(spectrum: Tensor, n_fft: int, hop: int) -> Tensor:
    """Returns the samples (B, S * hop) of a spectrum (B, S, K)."""
    window = torch.hann_window(n_fft, device=spectrum.device)
    frames = torch.fft.irfft(spectrum, n=n_fft) * window
    side = (n_fft - hop) // 2
    weights = overlap_add(window.square().expand(1, spectrum.shape[1], -1), hop)
    samples = overlap_add(frames, hop) / weights.clamp(min=EPSILON)
    return samples[:, side : side + spectrum.shape[1] * hop]


class Vocos(Generator):
    """Generator of Vocos. It has no noise input."""

    def __init__(self, size: VocosSize, audio: AudioConfig) -> None:
        super().__init__()
        self.size, self.hop = size, size.hop
        self.backbone = Backbone(size, audio.n_mels)
        self.head = InverseStftHead(size) if size.predicts_phases else ContinuedPhaseHead(size, audio)

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Generates samples (B, 1, N) from a log-mel (B, M, S)."""
        return self.head(self.backbone(mel), mel)[:, None]

    def magnitudes(self, mel: Tensor) -> Tensor:
        """Returns the predicted magnitudes (B, S, K) of a log-mel (B, M, S), in float32."""
        return self.head.magnitudes(self.backbone(mel), mel)

    @property
    def context_frames(self) -> int:
        """Frames on each side of a frame that can influence its samples."""
        return (self.size.blocks + 1) * (KERNEL // 2) + math.ceil((self.size.n_fft - self.hop) / 2 / self.hop)
