"""Global alignment of two sequences."""

from __future__ import annotations

import numpy as np


def pair_in_order(scores: np.ndarray, skipped_row: float, skipped_column: float) -> list[tuple[int, int]]:
    """Returns the index pairs of the best global alignment of two sequences (Needleman and Wunsch 1970).

    Args:
        scores: (I, J) score of pairing item i of the first with item j of the second sequence; -inf forbids it.
        skipped_row: Score of an unpaired item of the first sequence.
        skipped_column: Score of an unpaired item of the second sequence.

    Returns:
        (i, j) in increasing order.
    """
    rows, columns = scores.shape
    score = np.zeros((rows + 1, columns + 1))
    score[:, 0] = skipped_row * np.arange(rows + 1)
    score[0, :] = skipped_column * np.arange(columns + 1)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            paired = score[i - 1, j - 1] + scores[i - 1, j - 1]
            score[i, j] = max(paired, score[i - 1, j] + skipped_row, score[i, j - 1] + skipped_column)
    pairs, i, j = [], rows, columns
    while i and j:
        if score[i, j] == score[i - 1, j - 1] + scores[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif score[i, j] == score[i - 1, j] + skipped_row:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
