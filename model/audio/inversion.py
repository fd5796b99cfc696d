"""Mel spectrogram to waveform in a few iterations, in pieces of any length.

Phases are continued from frame to frame (`model.audio.phase`); a few iterations of fast Griffin-Lim then make the
frames consistent and fit them to the mel. M mel bands, S frames, K = n_fft / 2 + 1 frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from model.audio.griffin_lim import overlap_add
from model.audio.mel import MelExtractor, padding
from model.audio.phase import continue_phases
from model.config.data import AudioConfig

MAGNITUDE_UPDATES = 3
"""Multiplicative updates of magnitudes that are fitted to a mel; the iterations continue the fit."""
TINY = 1e-9


class MelInverter(nn.Module):
    """Inverts log-mels, given approximate linear magnitudes.

    The ends are reflected as by the mel extractor, so that frames keep their position.

    Args:
        audio: Mel settings.
        iterations: Griffin-Lim iterations.
        momentum: Momentum of fast Griffin-Lim (https://doi.org/10.1109/WASPAA.2013.6701851), at least 0 and below 1.
    """

    bank: Tensor
    spread: Tensor
    window: Tensor

    def __init__(self, audio: AudioConfig, iterations: int, momentum: float) -> None:
        super().__init__()
        self.audio, self.iterations, self.momentum = audio, iterations, momentum
        extractor = MelExtractor(audio)
        bank = extractor.filterbank
        self.bins = int(bank.sum(0).nonzero().max()) + 1  # no filter covers the bins above fmax
        bank = bank[:, : self.bins].T.contiguous()
        missing = audio.n_fft - audio.win_length  # a shorter window is centered, as in `torch.stft`
        window = nn.functional.pad(extractor.window, (missing // 2, missing - missing // 2))
        self.register_buffer("window", window, persistent=False)  # (n_fft,)
        self.register_buffer("bank", bank, persistent=False)  # (K of the mel, M)
        # Divided by the sums, so that an update needs no division.
        scaled = (bank / bank.sum(1, keepdim=True).clamp(min=TINY)).T.contiguous()
        self.register_buffer("spread", scaled, persistent=False)  # (M, K of the mel)

    @property
    def context_frames(self) -> int:
        """Frames on each side of a frame that can influence its samples, apart from the phases carried over."""
        reach = -(-(self.audio.n_fft - self.audio.hop_length) // (2 * self.audio.hop_length))
        return reach * (2 * self.iterations + 1)

    @torch.no_grad()
    def magnitudes(self, mel: Tensor) -> Tensor:
        """Returns non-negative magnitudes (..., S, K') with the given log-mel (..., S, M), up to its highest band."""
        target = mel.exp()
        fitted = (target @ self.bank.T) / self.bank.square().sum(1).clamp(min=TINY)
        for _ in range(MAGNITUDE_UPDATES):
            fitted = fitted * self._gains(fitted, target)
        return fitted

    @torch.inference_mode()
    def __call__(self, mel: Tensor, magnitudes: Tensor, previous: np.ndarray | None) -> tuple[Tensor, np.ndarray]:
        """Returns samples (S * hop,) and the phases (S, K) of the first estimate.

        Args:
            mel: (S, M) log-mel.
            magnitudes: (S, K) approximate magnitudes; K may be smaller, where the frequencies above are silent.
            previous: (K,) phases of the frame before the first one, None at the start of a signal.
        """
        spectrum, phases = continued_spectrum(magnitudes, self.audio.n_fft, self.audio.hop_length, previous)
        return self._refine(spectrum, mel.exp()), phases

    def stream(
        self, mel: Tensor, magnitudes: Callable[[int, int], Tensor], chunks: Iterable[tuple[int, int]]
    ) -> Iterator[Tensor]:
        """Yields the samples of consecutive chunks of a log-mel; joined, they equal those of a single chunk.

        Args:
            mel: (S, M) log-mel.
            magnitudes: Function from a first and one-past-last frame to their approximate magnitudes (S', K).
            chunks: First and one-past-last frame of each chunk, in order and without gaps.
        """
        context, hop, previous = self.context_frames, self.audio.hop_length, None
        for start, end in chunks:
            first, last = max(0, start - context), min(len(mel), end + context)
            samples, phases = self(mel[first:last], magnitudes(first, last), previous)
            following = max(0, end - context)  # first frame of the next chunk with its context
            previous = phases[following - first - 1] if following else None
            yield samples[(start - first) * hop : (end - first) * hop]

    def _refine(self, spectrum: Tensor, target: Tensor) -> Tensor:
        """Returns samples after the iterations, from a first spectrum (S, K) and the mel (S, M)."""
        previous, bins = spectrum, spectrum.shape[1]
        weights = overlap_add(self.window.square().expand(len(target), -1), self.audio.hop_length).clamp(min=TINY)
        for iteration in range(self.iterations):
            consistent = self._analyze(self._synthesize(spectrum, weights))[:, :bins]
            factors = _absolute(consistent)
            gains = self._gains(factors[:, : self.bins], target)
            pushed = _lerp(previous, consistent, 1.0 + self.momentum) if iteration else consistent.clone()
            factors.div_(_absolute(pushed))  # magnitudes over those of the pushed spectrum, fitted to the mel
            factors[:, : self.bins].mul_(gains)
            previous, spectrum = consistent, pushed.mul_(factors)
        return self._synthesize(spectrum, weights)

    def _gains(self, magnitudes: Tensor, target: Tensor) -> Tensor:
        """Returns the factors of one multiplicative update of magnitudes (S, K) towards a mel (S, M)."""
        ratio = target / (magnitudes @ self.bank).clamp(min=TINY)
        return ratio @ self.spread

    def _analyze(self, samples: Tensor) -> Tensor:
        """Returns the spectrum (S, K) of samples (S * hop,), framed as by the mel extractor."""
        left, right = padding(self.audio)
        mode = "reflect" if len(samples) > right else "constant"  # one frame has too little to reflect
        padded = nn.functional.pad(samples[None, None], (left, right), mode=mode)[0, 0]
        return torch.fft.rfft(padded.unfold(0, self.audio.n_fft, self.audio.hop_length) * self.window)

    def _synthesize(self, spectrum: Tensor, weights: Tensor) -> Tensor:
        """Returns samples (S * hop,) of a spectrum (S, K): overlap-add, with the reflected ends cut off."""
        left, right = padding(self.audio)
        total = overlap_add(torch.fft.irfft(spectrum, n=self.audio.n_fft) * self.window, self.audio.hop_length)
        return (total / weights)[left : len(total) - right]


def continued_spectrum(
    magnitudes: Tensor, n_fft: int, hop: int, previous: np.ndarray | None = None
) -> tuple[Tensor, np.ndarray]:
    """Returns the spectrum (S, K) of magnitudes (S, K) with continued phases, and these phases (`continue_phases`).

    The phases of the spectrum are those at the start of each frame, and have no gradient.
    """
    phases = continue_phases(magnitudes.detach().cpu().numpy(), n_fft, hop, previous)
    angles = torch.from_numpy(phases.astype(np.float32))
    angles[:, 1::2] += math.pi  # from the center of the frames, where phases are continued, to their start
    angles = angles.to(magnitudes.device)
    return torch.complex(magnitudes * angles.cos(), magnitudes * angles.sin()), phases  # faster than `polar`


def _lerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Returns start + weight * (end - start) of complex tensors; three times as fast as on the complex type."""
    return torch.view_as_complex(torch.lerp(torch.view_as_real(start), torch.view_as_real(end), weight))


def _absolute(spectrum: Tensor) -> Tensor:
    """Returns magnitudes of a complex tensor, at least `TINY`; three times as fast as the overflow-safe `abs`."""
    parts = torch.view_as_real(spectrum)
    return torch.addcmul(parts[..., 0].square(), parts[..., 1], parts[..., 1]).sqrt_().clamp_(min=TINY)
