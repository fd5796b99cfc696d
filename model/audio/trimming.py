"""Trimming of silence and normalization of loudness: the part of a recording that features are made from."""

from __future__ import annotations

import numpy as np

from model.audio.loudness import gain_to
from model.config.data import FeaturesConfig

FRAME_SECONDS = 0.02


def speech_bounds(samples: np.ndarray, sample_rate: int, threshold_db: float, margin: float) -> tuple[int, int]:
    """First and one-past-last sample to keep when the silence around speech is trimmed.

    Args:
        samples: (N,).
        sample_rate: In Hz.
        threshold_db: Frames more than this below the loudest frame are silence; 0 keeps the whole clip.
        margin: Seconds of silence to keep at each end.

    Returns:
        `start, end` with 0 <= start < end <= N; the whole clip where everything is equally silent.
    """
    size = max(1, int(FRAME_SECONDS * sample_rate))
    frames = len(samples) // size
    if threshold_db <= 0 or frames == 0:
        return 0, len(samples)
    level = np.square(samples[: frames * size], dtype=np.float64).reshape(frames, size).mean(axis=1)
    loud = np.flatnonzero(level >= level.max() * 10 ** (-threshold_db / 10))
    keep = int(margin * sample_rate)
    return max(0, loud[0] * size - keep), min(len(samples), (loud[-1] + 1) * size + keep)


def shaping(samples: np.ndarray, sample_rate: int, settings: FeaturesConfig) -> tuple[int, int, float]:
    """What of a recording (N,) becomes features: first sample, one past the last, and the gain."""
    start, end = speech_bounds(samples, sample_rate, settings.trim_silence_db, settings.trim_margin)
    gain = gain_to(settings.target_loudness, samples[start:end], sample_rate) if settings.target_loudness else 1.0
    return start, end, gain


def shaped(samples: np.ndarray, start: int, end: int, gain: float) -> np.ndarray:
    """The samples that features are made from: trimmed and brought to the loudness of the corpus."""
    return samples[start:end] if gain == 1.0 else samples[start:end] * np.float32(gain)
