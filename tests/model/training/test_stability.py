"""Stability: clipping in two stages, the status of a step, parameters that explode or vanish."""

import math

import pytest
import torch
from torch import nn

from model.config.resolution import resolve
from model.training.stability import MEDIAN_STEPS, DivergenceDetector, ParameterMonitor, clip_gradients


def with_gradient(*values: float) -> nn.Module:
    module = nn.Linear(len(values), 1, bias=False)
    module.weight.grad = torch.tensor([values])
    return module


def make_detector(**training) -> DivergenceDetector:
    return DivergenceDetector(
        resolve(None, None, {f"training.{key}": value for key, value in training.items()}).config.training
    )


def test_elements_are_clipped_before_the_norm_and_both_are_reported():
    module = with_gradient(3.0, -4.0, 0.0, 0.5)
    report = clip_gradients(module, value=2.0, norm=0.7)
    assert report.norm == pytest.approx(math.sqrt(4 + 4 + 0.25))
    assert report.clipped_elements == 0.5
    assert report.clipped_norm
    assert module.weight.grad.norm() == pytest.approx(0.7, abs=1e-5)
    assert module.weight.grad[0, 0] == -module.weight.grad[0, 1]  # 3 and -4 were both cut to 2


def test_a_small_gradient_is_left_alone():
    module = with_gradient(0.1, -0.2)
    report = clip_gradients(module, value=0.21, norm=0.23)
    assert (report.clipped_elements, report.clipped_norm) == (0.0, False)
    assert torch.equal(module.weight.grad, torch.tensor([[0.1, -0.2]]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_has_no_finite_norm(bad):
    report = clip_gradients(with_gradient(0.1, bad), value=1e30, norm=0.5)
    assert not math.isfinite(report.norm)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite_is_skipped(loss, norm):
    assert make_detector().classify(loss, norm) == "skipped"


def test_a_loss_far_above_the_best_median_has_diverged():
    detector = make_detector(divergence_factor=3.0)
    for _ in range(MEDIAN_STEPS):
        assert detector.classify(2.0, 1.0) == "ok"
    assert detector.classify(5.9, 1.0) == "ok"
    assert detector.classify(6.1, 1.0) == "diverged"
    tolerant = make_detector(divergence_factor=3.5)
    tolerant.load_state_dict(detector.state_dict())
    assert tolerant.classify(6.1, 1.0) == "ok"


def rising(detector: DivergenceDetector, start: float, growth: float, steps: int = 400) -> tuple[int, float]:
    """Returns the number of steps until a loss that grows by `growth` per step has diverged, and its value then."""
    for step in range(steps):
        loss = start * growth**step
        if detector.classify(loss, 1.0) == "diverged":
            return step, loss
    pytest.fail(f"a loss that grew from {start} to {loss:.3g} was never seen")


@pytest.mark.parametrize("growth", [1.005, 1.02, 1.2])
def test_a_slow_divergence_is_detected_at_the_same_loss_as_a_sudden_one(growth):
    detector = make_detector(divergence_factor=3.0)
    for _ in range(3 * MEDIAN_STEPS):
        detector.classify(2.0, 1.0)
    steps, loss = rising(detector, 2.0, growth)
    assert 6.0 < loss < 6.0 * growth * 1.001
    assert steps == math.ceil(math.log(3.0) / math.log(growth))


def test_a_rollback_keeps_the_best_median():
    detector = make_detector(divergence_factor=3.0)
    for _ in range(MEDIAN_STEPS):
        detector.classify(2.0, 1.0)
    rising(detector, 2.0, 1.02)
    detector.record_rollback()
    assert detector.classify(5.9, 1.0) == "ok"
    assert detector.classify(6.1, 1.0) == "diverged"


def test_one_lucky_step_does_not_make_the_usual_loss_a_divergence():
    detector = make_detector(divergence_factor=3.0)
    for step in range(3 * MEDIAN_STEPS):
        assert detector.classify(0.1 if step == MEDIAN_STEPS + 5 else 2.0, 1.0) == "ok"


def test_the_bound_follows_a_loss_that_falls():
    detector = make_detector(divergence_factor=3.0)
    for loss in [10.0] * MEDIAN_STEPS + [1.0] * (MEDIAN_STEPS // 2 + 1):
        detector.classify(loss, 1.0)
    assert detector.classify(2.9, 1.0) == "ok"
    assert detector.classify(3.1, 1.0) == "diverged"


def test_bad_losses_do_not_move_the_bound():
    detector = make_detector(divergence_factor=3.0, max_skipped_steps=1000)
    for _ in range(MEDIAN_STEPS):
        detector.classify(2.0, 1.0)
    for _ in range(3 * MEDIAN_STEPS):
        assert detector.classify(50.0, 1.0) == "diverged"
        assert detector.classify(math.nan, 1.0) == "skipped"
    assert detector.classify(5.9, 1.0) == "ok"


def test_bad_steps_in_a_row_need_a_rollback_and_a_good_one_resets_the_count():
    detector = make_detector(max_skipped_steps=3, max_rollbacks=2, rollback_rate_factor=0.4)
    for loss in (math.nan, math.nan, 1.0, math.nan, math.nan):
        detector.classify(loss, 1.0)
        assert not detector.needs_rollback
    detector.classify(math.nan, 1.0)
    assert detector.needs_rollback
    for factor in (0.4, 0.16):
        assert not detector.rollbacks_exhausted
        detector.record_rollback()
        assert detector.learning_rate_factor == pytest.approx(factor)
        assert not detector.needs_rollback
    assert detector.rollbacks_exhausted


def test_noise_of_a_real_run_is_no_divergence():
    detector = make_detector()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, generator=generator).mul(0.3).exp().tolist()
    statuses = [detector.classify((12 * math.exp(-step / 300) + 1) * noise[step], 1.0) for step in range(2000)]
    assert statuses.count("ok") > 1990
    assert not detector.needs_rollback


def test_exploding_and_vanishing_parameters_are_reported_once_before_they_are_nan():
    module = nn.Linear(4, 4)
    monitor = ParameterMonitor(module)
    assert monitor.check(module) == []
    with torch.no_grad():
        module.weight.mul_(1e6)
        module.bias.mul_(1e-6)
    exploded, vanished = monitor.check(module)
    assert "weight has exploded" in exploded
    assert "bias has vanished" in vanished
    assert monitor.check(module) == []


def test_a_parameter_that_starts_at_zero_may_grow():
    module = nn.Linear(4, 4)
    nn.init.zeros_(module.weight)
    monitor = ParameterMonitor(module)
    nn.init.normal_(module.weight)
    assert monitor.check(module) == []
