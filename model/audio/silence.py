"""Where speech begins and ends in a clip."""

from __future__ import annotations

import numpy as np

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
