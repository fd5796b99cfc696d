"""Statistics of paired comparisons: bootstrap intervals of means, and the number of sentences that a margin needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

TAIL = 0.025
"""Probability that a mean lies beyond one end of its interval; of skewed samples up to twice that."""
FAILURE = 0.05
"""Largest probability that an equal voice fails, with the number of sentences that `sentences_needed` returns."""
SKEW_ALLOWANCE = 1.3
"""Factor on the number of sentences, since differences of error rates are skewed (`benchmarks/promotion.py`)."""
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean of a sample with its 95 % interval.

    Attributes:
        mean: Mean of the values.
        low, high: Ends of the interval; infinite for fewer than two values.
        deviation: Standard deviation of the values; NaN for fewer than two.
        count: Number of values.
    """

    mean: float
    low: float
    high: float
    deviation: float
    count: int


def estimate_mean(values: Sequence[float]) -> Estimate:
    """Estimates a mean by the studentized bootstrap (bootstrap-t), with an interval at least as wide as Student's.

    The bootstrap follows skewed differences (a voice that fails on few sentences); Student's interval guards against
    samples whose values are mostly equal, where the bootstrap is too narrow. `benchmarks/promotion.py` measures both.

    Args:
        values: At least one value; the same values always give the same interval.
    """
    sample = np.asarray(values, np.float64)
    count, mean = len(sample), float(sample.mean())
    if count < 2:
        return Estimate(mean=mean, low=-math.inf, high=math.inf, deviation=math.nan, count=count)
    deviation = float(sample.std(ddof=1))
    resampled = sample[_resamples(count)]
    shifts = resampled.mean(axis=1) - mean
    errors = resampled.std(axis=1, ddof=1) / math.sqrt(count)
    spread = errors > 1e-12 * np.abs(sample).max()  # resamples of one value only have no scale, and are left out
    studentized = shifts[spread] / errors[spread] if spread.any() else np.zeros(1)
    lower, upper = np.quantile(studentized, (TAIL, 1.0 - TAIL), method="nearest")
    student = float(stdtrit(count - 1, 1.0 - TAIL))
    scale = deviation / math.sqrt(count)
    low = mean - max(float(upper), student) * scale if scale else mean
    high = mean + max(-float(lower), student) * scale if scale else mean
    return Estimate(mean=mean, low=low, high=high, deviation=deviation, count=count)


@lru_cache(maxsize=4)  # of the sample sizes in a comparison
def _resamples(count: int) -> np.ndarray:
    """Returns the positions (RESAMPLES, count) of the values that each resample draws; always the same."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def sentences_needed(deviation: float, margin: float, comparisons: int) -> int:
    """Returns the number of sentences with which an equal voice passes all comparisons with a probability of 95 %.

    A comparison passes where the worse end of the interval of the difference is within the margin. The probability that
    an equal voice fails (5 %) is divided among the comparisons.

    Args:
        deviation: Standard deviation of the paired differences.
        margin: Largest accepted regression, above 0.
        comparisons: Number of metrics that are compared.
    """
    wanted = 1.0 - FAILURE / comparisons
    distance = float(ndtri(1.0 - TAIL) + ndtri(wanted))
    count = max(2, math.floor((distance * deviation / margin) ** 2))  # a lower bound: Student's quantile is larger
    while power(deviation, margin, count) < wanted:
        count += 1
    return math.ceil(SKEW_ALLOWANCE * count)


def power(deviation: float, margin: float, count: int) -> float:
    """Returns the probability that an equal voice passes a comparison of `count` sentences, at least two."""
    if deviation == 0.0:
        return 1.0
    return float(ndtr(margin * math.sqrt(count) / deviation - stdtrit(count - 1, 1.0 - TAIL)))
