"""What a vocoder is trained by: least-squares adversarial terms, feature matching, and distances between spectra."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.audio.mel import MelExtractor
from model.config.schema import AudioConfig
from model.vocoder.discriminators import Judgement

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""(n_fft, hop, window) of the multi-resolution STFT loss, as published."""
FLOOR = 1e-7
"""Power below which a spectrogram bin counts as silent: keeps logarithm and gradient finite."""


def discriminator_loss(real: list[Judgement], fake: list[Judgement], average: bool = False) -> Tensor:
    """Recordings should score 1, generated speech 0 (arXiv:1611.04076).

    Args:
        real, fake: Judgements of the same heads.
        average: Over the heads (UnivNet) instead of their sum (HiFi-GAN).
    """
    terms = [(1 - r).square().mean() + f.square().mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    total = torch.stack(terms).sum()
    return total / len(terms) if average else total


def adversarial_loss(fake: list[Judgement], average: bool = False) -> Tensor:
    """Generated speech should score 1."""
    total = torch.stack([(1 - score).square().mean() for score, _ in fake]).sum()
    return total / len(fake) if average else total


def feature_matching_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Sum over all layers of the mean absolute difference of activations (arXiv:1910.06711)."""
    return torch.stack(
        [
            F.l1_loss(f, r.detach())
            for (_, theirs), (_, ours) in zip(real, fake, strict=True)
            for r, f in zip(theirs, ours, strict=True)
        ]
    ).sum()


class FullBandMel(nn.Module):
    """Log-mel up to half the sample rate: what the mel loss compares, though the generator reads only up to `fmax`."""

    def __init__(self, audio: AudioConfig) -> None:
        super().__init__()
        self.extractor = MelExtractor(audio.model_copy(update={"fmax": audio.sample_rate / 2}))

    def forward(self, samples: Tensor) -> Tensor:
        """(B, 1, N) -> (B, M, S)."""
        return self.extractor(samples[:, 0])


class MultiResolutionStft(nn.Module):
    """Spectral convergence and log-magnitude distance, averaged over resolutions (arXiv:1910.11480)."""

    def __init__(self, resolutions: tuple[tuple[int, int, int], ...] = RESOLUTIONS) -> None:
        super().__init__()
        self.resolutions = resolutions
        for index, (_, _, window) in enumerate(resolutions):
            self.register_buffer(f"window_{index}", torch.hann_window(window), persistent=False)

    def forward(self, generated: Tensor, recorded: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, N) twice -> spectral convergence (relative, 0 is equal) and log-magnitude L1 (nepers)."""
        convergence, distance = [], []
        for index in range(len(self.resolutions)):
            ours, theirs = self._magnitudes(generated, index), self._magnitudes(recorded, index)
            convergence.append(torch.linalg.vector_norm(theirs - ours) / torch.linalg.vector_norm(theirs))
            distance.append(F.l1_loss(ours.log(), theirs.log()))
        return torch.stack(convergence).mean(), torch.stack(distance).mean()

    def _magnitudes(self, samples: Tensor, index: int) -> Tensor:
        n_fft, hop, window = self.resolutions[index]
        with torch.autocast(samples.device.type, enabled=False):
            spectrum = torch.stft(
                samples[:, 0].float(), n_fft, hop, window, getattr(self, f"window_{index}"), return_complex=True
            )
            return torch.view_as_real(spectrum).square().sum(-1).clamp(min=FLOOR).sqrt()
