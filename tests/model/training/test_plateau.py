"""The plateau breaker: falls are left alone, a plateau raises the rate once, and visibly."""

import pytest

from model.config import resolve
from model.training.plateau import PlateauBreaker
from model.training.schedule import learning_rate


def breaker(**changes) -> PlateauBreaker:
    settings = {"enable_plateau_breaker": True, "warmup_steps": 10, "max_steps": 1000, "plateau_patience": 40}
    settings |= {"plateau_boost_steps": 100, "learning_rate_schedule": "constant", "learning_rate": 1e-3, **changes}
    return PlateauBreaker(resolve(None, None, {f"training.{k}": v for k, v in settings.items()}).config.training)


def test_a_plateau_raises_the_rate_once():
    plateau = breaker(plateau_rate_boost=5.0)
    triggers = [step for step in range(1000) if plateau.update(step, 2.5)]
    assert triggers == [10 + 40 - 1]
    rates = [plateau.rate(step, learning_rate(step, plateau.settings)) for step in range(1000)]
    start = triggers[0]
    assert max(rates) == pytest.approx(5e-3)
    assert rates.index(max(rates)) == start + 10
    assert rates[start + 100 :] == [1e-3] * (1000 - start - 100)
    assert all(rate >= learning_rate(step, plateau.settings) for step, rate in enumerate(rates))


def test_a_falling_loss_is_no_plateau():
    loss = [3 * 0.999**step for step in range(1000)]
    assert not any(breaker(plateau_threshold=0.01).update(step, value) for step, value in enumerate(loss))
    strict = breaker(plateau_threshold=0.05)
    assert any(strict.update(step, value) for step, value in enumerate(loss))


def test_it_is_silent_when_off_in_warm_up_and_near_the_end():
    assert not any(breaker(enable_plateau_breaker=False).update(step, 2.5) for step in range(1000))
    assert not any(breaker(warmup_steps=970).update(step, 2.5) for step in range(1000))


def test_the_state_goes_on_where_it_was():
    whole, first = breaker(), breaker()
    for step in range(30):
        whole.update(step, 2.5)
        first.update(step, 2.5)
    second = breaker()
    second.load_state_dict(first.state_dict())
    assert [whole.update(step, 2.5) for step in range(30, 80)] == [second.update(step, 2.5) for step in range(30, 80)]
    assert whole.triggered_at == second.triggered_at
