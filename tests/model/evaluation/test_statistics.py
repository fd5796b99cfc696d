"""Bootstrap intervals and numbers of sentences: their probabilities, by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import t

from model.evaluation.statistics import SKEW_ALLOWANCE, estimate_mean, power, sentences_needed


def test_the_interval_of_equal_values_is_a_point():
    estimate = estimate_mean([0.25] * 10)
    assert (estimate.mean, estimate.low, estimate.high, estimate.deviation) == (0.25, 0.25, 0.25, 0.0)


def test_one_value_says_nothing_about_the_mean():
    estimate = estimate_mean([1.0])
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert math.isnan(estimate.deviation)


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(1).standard_normal(20).tolist()
    assert estimate_mean(values) == estimate_mean(values)
    shifted = [value + 1.0 for value in values]
    assert estimate_mean(shifted).low == pytest.approx(estimate_mean(values).low + 1.0)


def test_the_interval_is_never_narrower_than_students():
    for count in (10, 30):
        values = np.random.default_rng(count).standard_normal(count)
        estimate = estimate_mean(values)
        half = t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)
        assert estimate.low <= estimate.mean - half + 1e-12
        assert estimate.high >= estimate.mean + half - 1e-12
        assert estimate.high - estimate.low < 4 * half


def test_an_interval_with_a_rare_failure_reaches_further_to_its_side():
    estimate = estimate_mean([0.0, 0.01, 0.02, 0.0, 0.01, 0.03, 0.0, 0.02, 0.01, 0.0, 0.02, 0.9])
    assert estimate.high - estimate.mean > 2 * (estimate.mean - estimate.low)


@pytest.mark.parametrize("comparisons", [1, 6])
def test_the_needed_number_of_sentences_gives_the_power_that_it_promises(comparisons):
    needed = sentences_needed(0.2, 0.1, comparisons) / SKEW_ALLOWANCE
    assert power(0.2, 0.1, math.ceil(needed)) >= 1 - 0.05 / comparisons > power(0.2, 0.1, math.floor(needed) - 1)


def test_equal_voices_pass_as_often_as_the_power_says():
    """A difference of 0 with deviation 1, margin 0.8, 24 sentences; Student's interval, which is faster."""
    draws = np.random.default_rng(0).standard_normal((20000, 24))
    half = t.ppf(0.975, 23) * draws.std(axis=1, ddof=1) / math.sqrt(24)
    assert (draws.mean(axis=1) + half <= 0.8).mean() == pytest.approx(power(1.0, 0.8, 24), abs=0.02)


def test_a_single_difference_among_equal_values_has_a_finite_interval():
    """As between two good voices with equal error rates in all sentences but one."""
    for count in (2, 8, 20):
        estimate = estimate_mean([0.1] + [0.0] * (count - 1))
        assert -1.0 < estimate.low < estimate.mean < estimate.high < 1.5


def test_differences_without_any_spread_need_the_fewest_sentences():
    assert sentences_needed(0.0, 0.1, 6) == 3
    assert power(0.0, 0.1, 2) == 1.0
