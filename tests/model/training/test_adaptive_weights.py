"""Adaptive loss weights: noise changes nothing, a growing term is weighted down within bounds, schedules are kept."""

import pytest
import torch

from model.config.training import LossConfig
from model.training.losses import AVERAGING_STEPS, MAX_CHANGE, MAX_FACTOR, AdaptiveLossWeights, constant_weights

BASE = constant_weights(LossConfig())


def noisy_terms(steps: int, scale: dict[str, float] | None = None, seed: int = 0, sigma: float = 0.5):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(steps, len(BASE), generator=generator).mul(sigma).exp().tolist()
    for row in noise:
        yield {name: value * (scale or {}).get(name, 1.0) for name, value in zip(BASE, row, strict=True)}


def test_schedules_are_not_adapted():
    assert "binarization" not in BASE
    assert {"mel", "duration", "forward_sum"} <= set(BASE)
    assert "pitch" not in constant_weights(LossConfig(pitch_loss_weight=0.0))


@pytest.mark.parametrize("seed", range(5))
def test_stationary_noise_leaves_the_weights_near_their_base_over_3000_updates(seed):
    adaptive = AdaptiveLossWeights(list(BASE), interval=1)
    for terms in noisy_terms(3000 + AVERAGING_STEPS, seed=seed):
        adaptive.update(terms)
        for name, weight in adaptive.weights(BASE).items():
            assert weight == pytest.approx(BASE[name], rel=0.05)


@pytest.mark.parametrize(("growth", "direction"), [(10.0, -1), (0.1, 1)])
def test_the_weight_of_a_term_scaled_by_ten_is_adapted_within_bounds(growth, direction):
    adaptive = AdaptiveLossWeights(list(BASE), interval=40)
    for terms in noisy_terms(2 * AVERAGING_STEPS):
        adaptive.update(terms)
    for terms in noisy_terms(6000, {"pitch": growth}, seed=1):
        before = dict(adaptive.factors)
        adaptive.update(terms)
        for name, factor in adaptive.factors.items():
            assert 1 / MAX_FACTOR - 1e-9 <= factor <= MAX_FACTOR + 1e-9
            assert factor / before[name] - 1 <= MAX_CHANGE + 1e-9
    moved = adaptive.weights(BASE)["pitch"] / BASE["pitch"]
    assert moved < 0.5 if direction < 0 else moved > 2.0


def test_weights_move_at_their_interval_only():
    adaptive = AdaptiveLossWeights(list(BASE), interval=30)
    moved = []
    for step, terms in enumerate(noisy_terms(600, {"mel": 1.0}), start=1):
        before = dict(adaptive.factors)
        adaptive.update({**terms, "mel": 1.0 if step <= AVERAGING_STEPS else 20.0})
        if adaptive.factors != before:
            moved.append(step)
    assert moved
    assert all(step % 30 == 0 for step in moved)


def test_the_state_is_restored():
    first = AdaptiveLossWeights(list(BASE), interval=10)
    stream = list(noisy_terms(400, {"mel": 1.0})) + list(noisy_terms(400, {"mel": 10.0}, seed=2))
    for terms in stream[:500]:
        first.update(terms)
    second = AdaptiveLossWeights(list(BASE), interval=10)
    second.load_state_dict(first.state_dict())
    for terms in stream[500:]:
        first.update(terms)
        second.update(terms)
    assert first.state_dict() == second.state_dict()
    assert first.factors["mel"] < 1
