"""Metrics of a recording: level, noise, clipping, silence at its ends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from model.audio.loudness import decibels, frame_powers
from model.audio.trimming import FRAME_SECONDS, speech_bounds

FULL_SCALE = 0.999
"""Amplitude from which a sample counts as clipped."""
SILENCE_DB = 40.0
"""Distance to the loudest frame from which a frame is silent."""


@dataclass(frozen=True, kw_only=True)
class ClipMetrics:
    """Metrics of one recording.

    Attributes:
        level: Root mean square in dB full scale; like all metrics below it without the DC offset.
        peak: Largest amplitude; 1 is full scale.
        clipped: Fraction of samples at full scale.
        offset: DC offset: mean of the samples.
        noise: Level of the quietest 5 % of frames, in dB full scale.
        contrast: Difference between the loudest and the quietest 5 % of frames in dB; noise and reverberation lower it.
        lead, trail: Seconds of silence before and after the speech.
        fingerprint: Hash of the samples at 16 bit.
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


def clip_metrics(samples: np.ndarray, sample_rate: int) -> ClipMetrics:
    """Returns the metrics of a recording of (N,) samples, N > 0."""
    size = min(len(samples), max(1, int(FRAME_SECONDS * sample_rate)))
    offset = float(samples.mean(dtype=np.float64))
    peak, clipped = float(np.abs(samples).max()), float(np.mean(np.abs(samples) >= FULL_SCALE))
    fingerprint = hashlib.blake2b(np.round(samples * 32768).astype("<i4").tobytes(), digest_size=8).hexdigest()
    samples = samples - np.float32(offset)  # an offset would mask the level of pauses
    quiet, loud = np.percentile(decibels(frame_powers(samples, size)), (5, 95))
    start, end = speech_bounds(samples, sample_rate, SILENCE_DB, 0.0)
    return ClipMetrics(
        level=round(float(decibels(frame_powers(samples, len(samples)).item())), 2),
        peak=round(peak, 4),
        clipped=clipped,
        offset=round(offset, 5),
        noise=round(float(quiet), 2),
        contrast=round(float(loud - quiet), 2),
        lead=round(start / sample_rate, 3),
        trail=round((len(samples) - end) / sample_rate, 3),
        fingerprint=fingerprint,
    )
