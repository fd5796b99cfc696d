"""Pairing the items of two sequences without changing their order."""

from __future__ import annotations

import numpy as np


def pair_in_order(likeness: np.ndarray, skipped_row: float, skipped_column: float) -> list[tuple[int, int]]:
    """Index pairs of the best global alignment of two sequences (Needleman and Wunsch 1970).

    Args:
        likeness: (I, J) score of pairing item i of the one with item j of the other; -inf forbids it.
        skipped_row: Score of an item of the first sequence that stays alone.
        skipped_column: The same of the second.

    Returns:
        (i, j) in rising order.
    """
    rows, columns = likeness.shape
    score = np.zeros((rows + 1, columns + 1))
    score[:, 0] = skipped_row * np.arange(rows + 1)
    score[0, :] = skipped_column * np.arange(columns + 1)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            paired = score[i - 1, j - 1] + likeness[i - 1, j - 1]
            score[i, j] = max(paired, score[i - 1, j] + skipped_row, score[i, j - 1] + skipped_column)
    pairs, i, j = [], rows, columns
    while i and j:
        if score[i, j] == score[i - 1, j - 1] + likeness[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif score[i, j] == score[i - 1, j] + skipped_row:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
