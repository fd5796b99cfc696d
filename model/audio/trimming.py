"""Trimming of silence and normalization of loudness: the part of a recording that features are made from."""

from __future__ import annotations

import numpy as np

from model.audio.loudness import frame_powers, gain_to
from model.config.data import FeaturesConfig

FRAME_SECONDS = 0.02
CLICK_SECONDS = 0.16
"""Longest sound at the edge of a recording that may be a click, as of the recording program's button."""
CLICK_DB = 20.0
"""Level below the loudest frame that a click does not exceed. Louder sounds are kept, since they may be words."""
PAUSE_SECONDS = 0.3
"""Shortest silence between a click and the speech."""


def speech_bounds(samples: np.ndarray, sample_rate: int, threshold_db: float, margin: float) -> tuple[int, int]:
    """Returns the first and one-past-last sample that remain when silence and clicks at both ends are trimmed.

    A click is a short, quiet sound that a pause separates from the rest. Not `librosa.effects.trim`, because its frames
    are centered, which moves the bounds by up to half a frame, and it keeps no margin.

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
    loud = _without_clicks(powers, powers.max() * 10 ** (-threshold_db / 10))
    kept = int(margin * sample_rate)
    return max(0, int(loud[0]) * size - kept), min(len(samples), (int(loud[-1]) + 1) * size + kept)


def _without_clicks(powers: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the positions of the frames whose power (F,) reaches the threshold, without clicks at either end."""
    positions = np.flatnonzero(powers >= threshold)
    sounds = np.split(positions, np.flatnonzero(np.diff(positions) * FRAME_SECONDS > PAUSE_SECONDS) + 1)
    loud = powers.max() * 10 ** (-CLICK_DB / 10)
    speech = [
        index
        for index, sound in enumerate(sounds)
        if (sound[-1] - sound[0] + 1) * FRAME_SECONDS > CLICK_SECONDS or powers[sound].max() > loud
    ]  # never empty: it has the loudest frame
    return np.concatenate(sounds[speech[0] : speech[-1] + 1])


def trim_and_gain(samples: np.ndarray, sample_rate: int, settings: FeaturesConfig) -> tuple[int, int, float]:
    """Returns the first and one-past-last sample of a recording (N,) that become features, and their gain."""
    start, end = speech_bounds(samples, sample_rate, settings.trim_silence_db, settings.trim_margin)
    gain = gain_to(settings.target_loudness, samples[start:end], sample_rate) if settings.target_loudness else 1.0
    return start, end, gain


def trim_and_normalize(samples: np.ndarray, start: int, end: int, gain: float) -> np.ndarray:
    """Returns samples `start` to `end` times `gain`, as `trim_and_gain` found them."""
    return samples[start:end] if gain == 1.0 else samples[start:end] * np.float32(gain)
