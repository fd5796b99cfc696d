"""Resemblyzer on log-mels instead of samples, with gradients for the mels: the speaker consistency loss needs them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.speaker_encoder.base import SAMPLE_RATE
from model.speaker_encoder.resemblyzer import HOP_LENGTH, MIN_LEVEL, N_FFT, WINDOW_FRAMES, Resemblyzer

MAGNITUDE_UPDATES = 3
"""Multiplicative updates of the magnitudes that are fitted to a mel. Without them, embeddings resemble those of the
samples much less; more than three change little."""
TINY = 1e-9


class MelResemblyzer(nn.Module):
    """Embeds excerpts of log-mels of the acoustic model's extractor with Resemblyzer.

    Magnitudes are fitted to the mel. Their power, spread as by the shorter window of Resemblyzer's spectrum, is summed
    by its filters, and interpolated linearly to its frame rate. Phases are not needed for any of this. The weights are
    frozen; embeddings are comparable with each other, and approximate those of the samples.

    M mel bands, K frequencies of the extractor's spectrum, B excerpts.

    Args:
        audio: Mel settings.
        encoder: Resemblyzer.

    Attributes:
        frames: Frames of an excerpt: one window of Resemblyzer (1.6 s).
    """

    bank: Tensor
    fit: Tensor
    gains: Tensor
    response: Tensor
    frame_weights: Tensor

    def __init__(self, audio: AudioConfig, encoder: Resemblyzer) -> None:
        super().__init__()
        self.encoder = encoder
        self.frames = -(-WINDOW_FRAMES * HOP_LENGTH * audio.sample_rate // (SAMPLE_RATE * audio.hop_length))
        extractor = MelExtractor(audio)
        bank = extractor.filterbank  # (M, K)
        self.register_buffer("bank", bank.T.contiguous(), persistent=False)
        self.register_buffer("fit", bank / bank.square().sum(0).clamp(min=TINY), persistent=False)
        self.register_buffer("gains", bank / bank.sum(0).clamp(min=TINY), persistent=False)
        energy = audio.n_fft * extractor.window.square().sum()  # of the spectrum of a sinusoid, over its mean square
        response = filter_responses(encoder, audio.sample_rate / audio.n_fft, bank.shape[1]) / energy
        self.register_buffer("response", response, persistent=False)
        self.energy = float(energy)
        self.register_buffer("frame_weights", frame_weights(audio, self.frames), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """Returns unit embeddings (B, 256) of log-mel excerpts (B, `frames`, M).

        Frames after the end of a clip are `SILENCE`.
        """
        with torch.autocast(mel.device.type, enabled=False):
            power = self._power(mel.float())
            mean_square = 2 * power.detach().sum(2).mean(1) / self.energy  # of the samples
            gain = (MIN_LEVEL**2 / mean_square.clamp(min=TINY)).clamp(min=1.0)[:, None, None]
            return self.encoder(gain * (self.frame_weights @ (power @ self.response)))

    def _power(self, mel: Tensor) -> Tensor:
        """Returns the power spectrum (B, S, K) of magnitudes that are fitted to the mel."""
        target = mel.exp()
        magnitudes = target @ self.fit
        for _ in range(MAGNITUDE_UPDATES):
            magnitudes = magnitudes * ((target / (magnitudes @ self.bank).clamp(min=TINY)) @ self.gains)
        return magnitudes.square()


def filter_responses(encoder: Resemblyzer, spacing: float, count: int) -> Tensor:
    """Returns the output of Resemblyzer's filters for sinusoids of amplitude 2, (K, N_MELS) float32.

    Args:
        encoder: Resemblyzer.
        spacing: Distance of the frequencies in Hz, which start at 0.
        count: Number K of frequencies.
    """
    samples = torch.arange(N_FFT, dtype=torch.float64)
    frequencies = torch.arange(count, dtype=torch.float64) * (spacing / SAMPLE_RATE)
    phase = 2 * torch.pi * (frequencies[:, None] * samples)  # (K, N_FFT)
    window = encoder.window.double().cpu()
    spectrum = torch.fft.fft(torch.polar(window.expand_as(phase), phase), dim=1)[:, : N_FFT // 2 + 1]
    power = spectrum.abs().square()
    return (power @ encoder.filterbank.double().cpu().T).float()


def frame_weights(audio: AudioConfig, frames: int) -> Tensor:
    """Returns the matrix (WINDOW_FRAMES, frames) that interpolates frames linearly at Resemblyzer's positions.

    Frame s of the extractor is centered on sample s * hop + hop / 2, and frame r of Resemblyzer on its first sample.
    """
    samples = torch.arange(WINDOW_FRAMES) * HOP_LENGTH * (audio.sample_rate / SAMPLE_RATE)
    position = (samples / audio.hop_length - 0.5).clamp(0, frames - 1)
    return (1 - (position[:, None] - torch.arange(frames)).abs()).clamp(min=0.0)
