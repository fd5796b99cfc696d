"""What can be measured of one recording: level, noise, clipping, silence at its ends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from model.audio.trimming import FRAME_SECONDS, speech_bounds

FULL_SCALE = 0.999
"""Amplitude from which a sample counts as clipped."""
SILENCE_DB = 40.0
"""Frames this far below the loudest one are silence, as where features are trimmed."""
_FLOOR = 1e-10


@dataclass(frozen=True)
class Measures:
    """One recording in numbers.

    Attributes:
        level: Root mean square, dB full scale. This and what follows from it is measured without the offset.
        peak: Largest amplitude, 1 is full scale.
        clipped: Share of samples at full scale.
        offset: Mean of the samples (direct current), of full scale.
        noise: Level of the quietest twentieth of its frames, dB full scale.
        contrast: Between its loudest and quietest twentieth of frames, dB; noise and reverberation make it small.
        lead, trail: Seconds of silence before and after the speech.
        fingerprint: Hash of the samples; equal recordings have equal ones.
    """

    level: float
    peak: float
    clipped: float
    offset: float
    noise: float
    contrast: float
    lead: float
    trail: float
    fingerprint: str


def measure(samples: np.ndarray, sample_rate: int) -> Measures:
    """The measures of a recording of (N,) samples, N > 0."""
    size = max(1, int(FRAME_SECONDS * sample_rate))
    offset = float(samples.mean(dtype=np.float64))
    peak, clipped = float(np.abs(samples).max()), float(np.mean(np.abs(samples) >= FULL_SCALE))
    fingerprint = hashlib.blake2b(np.round(samples * 32768).astype("<i4").tobytes(), digest_size=8).hexdigest()
    samples = samples - np.float32(offset)  # it would hide how quiet the pauses are
    frames = samples[: len(samples) // size * size].reshape(-1, size) if len(samples) >= size else samples[None]
    loudness = _decibels(np.square(frames, dtype=np.float64).mean(axis=1))
    quiet, loud = np.percentile(loudness, (5, 95))
    start, end = speech_bounds(samples, sample_rate, SILENCE_DB, 0.0)
    return Measures(
        level=round(float(_decibels(np.square(samples, dtype=np.float64).mean())), 2),
        peak=round(peak, 4),
        clipped=clipped,
        offset=round(offset, 5),
        noise=round(float(quiet), 2),
        contrast=round(float(loud - quiet), 2),
        lead=round(float(start) / sample_rate, 3),
        trail=round(float(len(samples) - end) / sample_rate, 3),
        fingerprint=fingerprint,
    )


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, _FLOOR))
