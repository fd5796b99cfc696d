"""The learning rate and the loss weights over a whole run."""

import itertools
import math

import pytest

from model.config.resolution import presets, resolve
from model.config.training import LossConfig
from model.training.losses import loss_weights
from model.training.optimization import scheduled_learning_rate

SIZES, LEVELS = presets()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", LEVELS)
def test_the_rate_is_finite_and_positive_at_every_step_to_the_maximum(size, level):
    training = resolve(None, None, {"model_size": size, "optimization_level": level}).config.training
    rates = [scheduled_learning_rate(step, training) for step in range(training.max_steps + 1)]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    assert max(rates) == pytest.approx(training.learning_rate)
    assert rates[0] <= training.learning_rate / max(training.warmup_steps, 1)


def test_cosine_falls_to_its_floor_and_restarts_rise_again():
    cosine = resolve(None, None, {"training.learning_rate_schedule": "cosine"}).config.training
    assert scheduled_learning_rate(cosine.max_steps, cosine) == pytest.approx(
        cosine.learning_rate * cosine.final_learning_rate_ratio
    )
    restarts = cosine.model_copy(update={"learning_rate_schedule": "cosine_restarts"})
    rates = [scheduled_learning_rate(step, restarts) for step in range(cosine.warmup_steps, cosine.max_steps)]
    rises = sum(b > a for a, b in itertools.pairwise(rates))
    assert rises == 3


def test_binarization_waits_then_grows_to_its_weight():
    config = LossConfig(binarization_start=0.2, binarization_end=0.4, binarization_loss_weight=0.7)
    weights = [loss_weights(config, progress)["binarization"] for progress in (0.0, 0.2, 0.3, 0.4, 1.0)]
    assert weights == pytest.approx([0, 0, 0.35, 0.7, 0.7])
