"""The mel extractor of the whole system: log-mel spectrograms in the HiFi-GAN convention."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from model.audio import MEL_FLOOR
from model.config import settings_hash
from model.config.data import AudioConfig

MAGNITUDE_FLOOR = 1e-9
"""Added under the root of the magnitude: keeps its gradient finite in silence."""


def extractor_hash(audio: AudioConfig) -> str:
    """Returns the hash of the mel settings: features, checkpoints and vocoders with other hashes are incompatible."""
    return settings_hash(audio)


@lru_cache
def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Returns triangular filters of unit area on Slaney's mel scale, (n_mels, n_fft // 2 + 1) float32."""
    import librosa  # loads numba: slow, and importing this module must not be

    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)


class MelExtractor(nn.Module):
    """Waveform to log-mel spectrogram, in the convention of HiFi-GAN (https://arxiv.org/abs/2010.05646).

    The ends are reflected by (n_fft - hop) / 2 samples and frames are not centered, so that frame s is centered on
    sample s * hop + hop / 2 and S = floor(N / hop). Computes in float32 even under autocast. The buffers move with
    `.to(device)` and are not saved.
    """

    filterbank: Tensor
    window: Tensor

    def __init__(self, audio: AudioConfig) -> None:
        super().__init__()
        self.audio = audio
        bank = mel_filterbank(audio.sample_rate, audio.n_fft, audio.n_mels, audio.fmin, audio.fmax)
        self.register_buffer("filterbank", torch.from_numpy(bank), persistent=False)  # (M, n_fft // 2 + 1)
        self.register_buffer("window", torch.hann_window(audio.win_length), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Returns the log-mel spectrogram (n_mels, S) or (B, n_mels, S) of samples (N,) or (B, N) in [-1, 1].

        Raises:
            ValueError: N is too short for the reflection.
        """
        with torch.autocast(samples.device.type, enabled=False):
            magnitudes = self.magnitudes(samples.float())
            return torch.log(torch.clamp(self.filterbank @ magnitudes, min=MEL_FLOOR))

    def magnitudes(self, samples: Tensor) -> Tensor:
        """Returns the STFT magnitudes (..., n_fft // 2 + 1, S) of samples (..., N)."""
        audio = self.audio
        left, right = padding(audio)
        if samples.shape[-1] <= right:
            raise ValueError(
                f"{samples.shape[-1]} samples are too few for a mel spectrogram: the reflection at the ends "
                f"needs more than {right}; pad the clip with silence first"
            )
        flat = samples.reshape(-1, samples.shape[-1])
        padded = torch.nn.functional.pad(flat[:, None], (left, right), mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded,
            audio.n_fft,
            audio.hop_length,
            audio.win_length,
            self.window,
            center=False,
            onesided=True,
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        return torch.sqrt(power + MAGNITUDE_FLOOR).reshape(*samples.shape[:-1], *power.shape[1:])

    def numpy(self, samples: np.ndarray) -> np.ndarray:
        """Returns the log-mel spectrogram (S, n_mels) float32 of samples (N,): frames first, as features are stored."""
        with torch.inference_mode():
            mel = self(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)))
            return np.ascontiguousarray(mel.T.numpy())


def padding(audio: AudioConfig) -> tuple[int, int]:
    """Returns the samples of reflection before and after a clip; together n_fft - hop, so that S = floor(N / hop)."""
    total = audio.n_fft - audio.hop_length
    return total // 2, total - total // 2


def frame_energy(mel: np.ndarray) -> np.ndarray:
    """Returns the energy of each frame: the log of the root mean square over its mel bands.

    Args:
        mel: (S, n_mels) log-mel.

    Returns:
        (S,) float32, at least `SILENCE`.
    """
    loudest = mel.max(axis=1)  # factored out, so that no exponential overflows
    spread = np.exp(2.0 * (mel - loudest[:, None])).mean(axis=1)
    return (loudest + 0.5 * np.log(spread)).astype(np.float32)


PAUSES = 40
"""Percent of the frames of speech that `average_spectrum` leaves out: pauses and the softest sounds."""


def average_spectrum(mel: np.ndarray) -> np.ndarray:
    """Returns the long-term average spectrum of speech: the mean log-mel of its louder frames.

    Over some seconds it depends little on what is said, but on the speaker and on the microphone.

    Args:
        mel: (S, n_mels) log-mel.

    Returns:
        (n_mels,) float32.
    """
    energy = frame_energy(mel)
    return mel[energy >= np.percentile(energy, PAUSES)].mean(axis=0, dtype=np.float32)
