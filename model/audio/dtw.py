"""Dynamic time warping."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.spatial.distance import cdist


def dtw_path(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dynamic time warping by Euclidean distance.

    Args:
        a, b: (S, D) and (R, D).

    Returns:
        Frames of `a` and frames of `b`, (P,) each, that belong together; both never fall, and cover everything.
    """
    return _cheapest_path(cdist(a, b))


def _cheapest_path(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = _backtrack(_accumulate(np.ascontiguousarray(distance)))
    return pairs[:, 0], pairs[:, 1]


@njit(cache=True)
def _accumulate(distance):
    rows, columns = distance.shape
    cost = np.full((rows + 1, columns + 1), np.inf)
    cost[0, 0] = 0.0
    for i in range(rows):
        for j in range(columns):
            cost[i + 1, j + 1] = distance[i, j] + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    return cost


@njit(cache=True)
def _backtrack(cost):
    i, j = cost.shape[0] - 1, cost.shape[1] - 1
    pairs = np.empty((i + j, 2), dtype=np.int64)
    count = 0
    while i > 0 and j > 0:
        pairs[count, 0], pairs[count, 1] = i - 1, j - 1
        count += 1
        both, up, left = cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]
        if both <= up and both <= left:
            i, j = i - 1, j - 1
        elif up <= left:
            i -= 1
        else:
            j -= 1
    return pairs[:count][::-1]
