"""Trimming of silence and normalization of loudness: the part of a recording that features are made from."""

from __future__ import annotations

import numpy as np

from model.audio.loudness import frame_powers, gain_to
from model.config.data import FeaturesConfig

FRAME_SECONDS = 0.02
CLICK_SECONDS = 0.16
"""Longest sound at the edge of a recording that may be a click, as of the recording program's button."""
PAUSE_SECONDS = 0.3
"""Shortest silence between a click and the speech. Within speech, few pauses are as long, and words are longer than a
click."""


def speech_bounds(samples: np.ndarray, sample_rate: int, threshold_db: float, margin: float) -> tuple[int, int]:
    """Returns the first and one-past-last sample that remain when silence and clicks at both ends are trimmed.

    A click is a short sound that a pause separates from the rest. Not `librosa.effects.trim`, because its frames are
    centered, which moves the bounds by up to half a frame, and it keeps no margin.

    Args:
        samples: (N,).
        sample_rate: In Hz.
        threshold_db: Frames more than this below the loudest frame are silence; 0 keeps the whole clip.
        margin: Seconds of silence to keep at each end.

    Returns:
        `start, end` with 0 <= start < end <= N; the whole clip where everything is equally silent.
    """
    size = max(1, int(FRAME_SECONDS * sample_rate))
    if threshold_db <= 0 or len(samples) < size:
        return 0, len(samples)
    powers = frame_powers(samples, size)
    loud = _without_clicks(powers >= powers.max() * 10 ** (-threshold_db / 10))
    kept = int(margin * sample_rate)
    return max(0, int(loud[0]) * size - kept), min(len(samples), (int(loud[-1]) + 1) * size + kept)


def _without_clicks(loud: np.ndarray) -> np.ndarray:
    """Returns the positions of the loud frames (F,) without clicks before or after the others."""
    positions = np.flatnonzero(loud)
    sounds = np.split(positions, np.flatnonzero(np.diff(positions) * FRAME_SECONDS > PAUSE_SECONDS) + 1)
    longest = max(range(len(sounds)), key=lambda index: len(sounds[index]))  # is speech, however short
    first, last = 0, len(sounds) - 1
    while first < longest and _spans(sounds[first]) <= CLICK_SECONDS:
        first += 1
    while last > longest and _spans(sounds[last]) <= CLICK_SECONDS:
        last -= 1
    return np.concatenate(sounds[first : last + 1])


def _spans(positions: np.ndarray) -> float:
    """Returns the seconds from the first to the last of consecutive loud frames."""
    return float(positions[-1] - positions[0] + 1) * FRAME_SECONDS


def trim_and_gain(samples: np.ndarray, sample_rate: int, settings: FeaturesConfig) -> tuple[int, int, float]:
    """Returns the first and one-past-last sample of a recording (N,) that become features, and their gain."""
    start, end = speech_bounds(samples, sample_rate, settings.trim_silence_db, settings.trim_margin)
    gain = gain_to(settings.target_loudness, samples[start:end], sample_rate) if settings.target_loudness else 1.0
    return start, end, gain


def trim_and_normalize(samples: np.ndarray, start: int, end: int, gain: float) -> np.ndarray:
    """Returns samples `start` to `end` times `gain`, as `trim_and_gain` found them."""
    return samples[start:end] if gain == 1.0 else samples[start:end] * np.float32(gain)
