"""The one mel extractor: log-mel spectrograms in the HiFi-GAN convention, hashed into all that it makes."""

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
    """Identifies the mel settings; features, checkpoints and vocoders with other hashes do not fit together."""
    return settings_hash(audio)


@lru_cache
def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Triangular filters on Slaney's mel scale, each of unit area.

    Returns:
        (n_mels, n_fft // 2 + 1) float32, equal to `librosa.filters.mel` bit by bit.
    """
    edges = _mel_to_hertz(np.linspace(_hertz_to_mel(fmin), _hertz_to_mel(fmax), n_mels + 2))  # (n_mels + 2,)
    bins = np.fft.rfftfreq(n=n_fft, d=1.0 / sample_rate)
    widths = np.diff(edges)
    distance = edges[:, None] - bins[None, :]
    rising = -distance[:-2] / widths[:-1, None]
    falling = distance[2:] / widths[1:, None]
    # librosa keeps the triangles in single precision before it scales them; so do we, to agree to the last bit.
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    area = 2.0 / (edges[2:] - edges[:-2])
    return (triangles * area[:, None]).astype(np.float32)


class MelExtractor(nn.Module):
    """Waveform -> log-mel spectrogram.

    Reflect padding by (n_fft - hop) / 2 and no centring, so that frame s is centred on sample s * hop + hop / 2 and
    S = floor(N / hop). Always float32, whatever autocast is on. The buffers move with `.to(device)` and are not saved.
    Convention of HiFi-GAN (https://arxiv.org/abs/2010.05646).
    """

    def __init__(self, audio: AudioConfig) -> None:
        super().__init__()
        self.audio = audio
        bank = mel_filterbank(audio.sample_rate, audio.n_fft, audio.n_mels, audio.fmin, audio.fmax)
        self.register_buffer("filterbank", torch.from_numpy(bank), persistent=False)  # (M, n_fft // 2 + 1)
        self.register_buffer("window", torch.hann_window(audio.win_length), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """(N,) or (B, N) in [-1, 1] -> (n_mels, S) or (B, n_mels, S).

        Raises:
            ValueError: N is too short for the reflection.
        """
        with torch.autocast(samples.device.type, enabled=False):
            magnitudes = self.magnitudes(samples.float())
            return torch.log(torch.clamp(self.filterbank @ magnitudes, min=MEL_FLOOR))

    def magnitudes(self, samples: Tensor) -> Tensor:
        """(..., N) -> STFT magnitudes (..., n_fft // 2 + 1, S)."""
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
        """(N,) -> (S, n_mels) float32: frames first, as features are stored."""
        with torch.inference_mode():
            mel = self(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)))
            return np.ascontiguousarray(mel.T.numpy())


def padding(audio: AudioConfig) -> tuple[int, int]:
    """Samples of reflection (before, after) a clip; together n_fft - hop, so that S = floor(N / hop)."""
    total = audio.n_fft - audio.hop_length
    return total // 2, total - total // 2


def frame_energy(mel: np.ndarray) -> np.ndarray:
    """Loudness of each frame: log of the root mean square over the mel bands.

    Args:
        mel: (S, n_mels) log-mel.

    Returns:
        (S,) float32, at least `SILENCE`.
    """
    loudest = mel.max(axis=1)  # factored out, so that no exponential overflows
    spread = np.exp(2.0 * (mel - loudest[:, None])).mean(axis=1)
    return (loudest + 0.5 * np.log(spread)).astype(np.float32)


# Slaney's scale: linear up to 1 kHz (15 mel), then logarithmic, 27 mel for each factor of 6.4.
_HERTZ_PER_MEL = 200.0 / 3


_KNEE_HERTZ = 1000.0


_KNEE_MEL = _KNEE_HERTZ / _HERTZ_PER_MEL


_LOG_STEP = np.log(6.4) / 27.0


def _hertz_to_mel(hertz: float) -> float:
    if hertz < _KNEE_HERTZ:
        return hertz / _HERTZ_PER_MEL
    return _KNEE_MEL + np.log(hertz / _KNEE_HERTZ) / _LOG_STEP


def _mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < _KNEE_MEL, mels * _HERTZ_PER_MEL, _KNEE_HERTZ * np.exp(_LOG_STEP * (mels - _KNEE_MEL)))
