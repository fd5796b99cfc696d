"""Mel spectrogram to waveform without training: magnitudes by multiplicative updates, phases by fast Griffin-Lim."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from model.audio.mel import MelExtractor, padding
from model.config.data import AudioConfig
from model.errors import VocoderError
from model.threads import single_threaded

MAGNITUDE_UPDATES = 10
"""Multiplicative updates of the linear magnitudes before the first phase update."""
TINY = 1e-9
LOUDEST = 20.0
"""Largest log-mel value that is accepted: a full-scale square wave stays below 7."""


class GriffinLim(nn.Module):
    """Griffin-Lim with momentum (Perraudin et al. 2013, https://doi.org/10.1109/WASPAA.2013.6701851).

    Two things differ from `librosa.feature.inverse.mel_to_audio`. First, the linear magnitudes are not fixed in
    advance: they start as a non-negative fit by multiplicative updates (Lee and Seung 2001) and are refitted at each
    iteration from the magnitudes of the current signal, so that among all magnitudes with the target mel those of a
    real signal are found. On recorded speech that reduces the mel error to a third (0.03 instead of 0.08 to 0.10) for
    a tenth more time. Second, the STFT is the mel extractor's (no centering, reflected ends), so that frames keep their
    position.

    The starting phases come from a fixed seed: the same mel gives the same samples.
    """

    bank: Tensor
    bank_sums: Tensor
    window: Tensor

    def __init__(self, audio: AudioConfig, iterations: int = 60, momentum: float = 0.99) -> None:
        super().__init__()
        self.name, self.audio = "Griffin-Lim", audio
        self.iterations, self.momentum = iterations, momentum
        extractor = MelExtractor(audio)
        bank = extractor.filterbank
        # No filter covers the bins above fmax; leaving them out saves a fourth of the work.
        self.bins = int(bank.sum(0).nonzero().max()) + 1
        bank = bank[:, : self.bins].contiguous()
        self.register_buffer("bank", bank, persistent=False)  # (M, K)
        missing = audio.n_fft - audio.win_length  # a shorter window is centered, as in `torch.stft`
        window = nn.functional.pad(extractor.window, (missing // 2, missing - missing // 2))
        self.register_buffer("window", window, persistent=False)  # (n_fft,)
        self.register_buffer("bank_sums", bank.sum(0)[:, None].clamp(min=TINY), persistent=False)  # (K, 1)

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """Returns samples (S * hop,) float32 in [-1, 1] of a log-mel spectrogram (S, n_mels).

        Raises:
            VocoderError: the mel has another number of bands, no frames, or values that are not finite or above
                `LOUDEST`.
        """
        check_mel(mel, self.audio)
        # The matrices are small: with another process on the cores, a second thread took sixty times as long as one.
        with torch.inference_mode(), single_threaded():
            target = torch.from_numpy(np.ascontiguousarray(mel.T, dtype=np.float32)).exp()  # (M, S)
            samples = self._reconstruct(target)
            # Too loud a signal is scaled as a whole: clipping would distort it.
            return (samples / samples.abs().max().clamp(min=1.0)).numpy()

    def stream(self, mel: np.ndarray, first_frames: int = 0) -> Iterator[np.ndarray]:
        """Yields all samples at once: from random phases, every sample depends on the whole mel."""
        yield self(mel)

    def _reconstruct(self, target: Tensor) -> Tensor:
        magnitudes = (self.bank.T @ target) / self.bank.square().sum(0)[:, None].clamp(min=TINY)  # (K, S)
        for _ in range(MAGNITUDE_UPDATES):
            magnitudes = self._fitted(magnitudes, target)
        angles = 2 * math.pi * torch.rand(magnitudes.shape, generator=torch.Generator().manual_seed(0))
        estimate = torch.polar(magnitudes, angles)
        weights = self._overlap_add(self.window.square().expand(target.shape[1], -1)).clamp(min=TINY)
        previous = torch.zeros_like(estimate)
        for _ in range(self.iterations):
            consistent = self._analyze(self._synthesize(estimate, weights))
            magnitudes = self._fitted(consistent.abs().clamp(min=TINY), target)
            pushed = torch.lerp(previous, consistent, 1.0 + self.momentum)
            previous = consistent
            estimate = pushed * (magnitudes / pushed.abs().clamp(min=TINY))
        return self._synthesize(estimate, weights)

    def _fitted(self, magnitudes: Tensor, target: Tensor) -> Tensor:
        """Returns magnitudes (K, S) after one multiplicative update towards the mel `target` (M, S)."""
        ratio = target / (self.bank @ magnitudes).clamp(min=TINY)
        return magnitudes * ((self.bank.T @ ratio) / self.bank_sums)

    def _analyze(self, samples: Tensor) -> Tensor:
        """Returns the spectrum (K, S) of samples (S * hop,), framed as by the mel extractor."""
        left, right = padding(self.audio)
        mode = "reflect" if len(samples) > right else "constant"  # one frame has too little to reflect
        padded = nn.functional.pad(samples[None, None], (left, right), mode=mode)[0, 0]
        frames = padded.unfold(0, self.audio.n_fft, self.audio.hop_length) * self.window  # (S, n_fft)
        return torch.fft.rfft(frames)[:, : self.bins].T

    def _synthesize(self, spectrum: Tensor, weights: Tensor) -> Tensor:
        """Returns samples (S * hop,) of a spectrum (K, S): overlap-add, with the reflected ends cut off."""
        left, right = padding(self.audio)
        frames = torch.fft.irfft(spectrum.T, n=self.audio.n_fft) * self.window
        total = self._overlap_add(frames) / weights
        return total[left : len(total) - right]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Returns the sum ((S - 1) * hop + n_fft,) of overlapping frames (S, n_fft)."""
        return overlap_add(frames, self.audio.hop_length)


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sums frames (..., S, n_fft) that start every `hop` samples to (..., (S - 1) * hop + n_fft)."""
    *batch, count, size = frames.shape
    blocks = -(-size // hop)
    split = nn.functional.pad(frames, (0, blocks * hop - size)).reshape(*batch, count, blocks, hop)
    total = frames.new_zeros(*batch, count + blocks - 1, hop)
    for block in range(blocks):
        total[..., block : block + count, :] += split[..., block, :]
    return total.reshape(*batch, -1)[..., : (count - 1) * hop + size]


def check_mel(mel: np.ndarray, audio: AudioConfig) -> None:
    """Checks that an array is a log-mel spectrogram of these settings.

    Raises:
        VocoderError: as `GriffinLim.__call__`.
    """
    if mel.ndim != 2 or mel.shape[1] != audio.n_mels:
        raise VocoderError(
            f"a mel spectrogram of shape {tuple(mel.shape)} does not fit: this vocoder reads (frames, {audio.n_mels})"
        )
    if not len(mel):
        raise VocoderError("the mel spectrogram has no frames; give at least one")
    if not np.isfinite(mel).all():
        bad = int((~np.isfinite(mel)).any(axis=1).sum())
        raise VocoderError(f"{bad} of {len(mel)} mel frames are not finite numbers: the model that made them diverged")
    if mel.max() > LOUDEST:
        raise VocoderError(
            f"the largest log-mel value is {mel.max():.1f}, above {LOUDEST}: this is no log-mel of sound in [-1, 1]"
        )
