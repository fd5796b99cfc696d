"""Global alignment is the best of all possible ones."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from model.corpus.pairing import pair_in_order


def best_by_trying_all(likeness, row, column):
    rows, columns = likeness.shape
    return max(
        sum(likeness[i, j] for i, j in zip(some, others, strict=True)) + row * (rows - size) + column * (columns - size)
        for size in range(min(rows, columns) + 1)
        for some in combinations(range(rows), size)
        for others in combinations(range(columns), size)
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize(("row", "column"), [(-0.3, -0.3), (-1.5, -0.1)])
def test_no_pairing_is_better(shape, row, column):
    likeness = np.random.default_rng(sum(shape)).uniform(-1, 1, shape)
    pairs = pair_in_order(likeness, row, column)
    assert all(a < b and c < d for (a, c), (b, d) in pairwise(pairs))
    score = sum(likeness[pair] for pair in pairs)
    score += row * (shape[0] - len(pairs)) + column * (shape[1] - len(pairs))
    assert score == pytest.approx(best_by_trying_all(likeness, row, column))


def test_forbidden_pairs_are_not_made():
    assert pair_in_order(np.array([[-np.inf, 1.0], [-np.inf, -np.inf]]), -1.0, -1.0) == [(0, 1)]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_pairs_with_nothing(shape):
    assert pair_in_order(np.zeros(shape), -1.0, -1.0) == []
