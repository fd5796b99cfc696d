"""Dynamic time warping. `python -m model.audio.dtw` compiles it, so that its first use does not wait for that."""

from __future__ import annotations

import numpy as np


def dtw_path(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cheapest alignment of two sequences by the Euclidean distance of their frames.

    Args:
        a, b: (S, D) and (R, D).

    Returns:
        Aligned frames of `a` and of `b`, (P,) each: both are non-decreasing and cover every frame.
    """
    import librosa  # loads numba: slow, and only evaluation aligns recordings

    _, path = librosa.sequence.dtw(X=a.T, Y=b.T, metric="euclidean")  # (P, 2), last pair first
    return path[::-1, 0], path[::-1, 1]


if __name__ == "__main__":
    dtw_path(np.zeros((2, 1)), np.zeros((2, 1)))  # numba keeps the result
