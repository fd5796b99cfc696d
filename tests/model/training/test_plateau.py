"""The plateau scheduler: a falling loss changes nothing; the first plateau is tested with a lower learning rate."""

import json

import pytest

from model.config.resolution import resolve
from model.training.optimization import PlateauScheduler, scheduled_learning_rate


def scheduler(**changes) -> PlateauScheduler:
    settings = {"enable_plateau_breaker": True, "warmup_steps": 10, "max_steps": 1000, "plateau_patience": 40}
    settings |= {"plateau_boost_steps": 100, "learning_rate_schedule": "constant", "learning_rate": 8e-4, **changes}
    return PlateauScheduler(resolve(None, None, {f"training.{k}": v for k, v in settings.items()}).config.training)


def run(plateau: PlateauScheduler, loss, steps=1000) -> tuple[dict[int, str], list[float]]:
    """Returns the actions by step and the learning rate of each step; `loss` maps step and learning rate to a loss."""
    actions, rates = {}, []
    for step in range(steps):
        rates.append(plateau.learning_rate(step, scheduled_learning_rate(step, plateau.settings)))
        if action := plateau.update(step, loss(step, rates[-1])):
            actions[step] = action
    return actions, rates


def test_a_plateau_that_a_lower_rate_does_not_end_raises_the_rate_once():
    actions, rates = run(scheduler(plateau_rate_boost=5.0), lambda step, rate: 2.5)
    noticed, decided = 10 + 40 - 1, 10 + 40 - 1 + 20
    assert list(actions) == [noticed, decided]
    assert "rises once, for 100 steps" in actions[decided]
    assert rates[noticed + 1 : decided + 1] == pytest.approx([8e-4 / 5] * 20)
    assert max(rates) == pytest.approx(4e-3)
    assert rates.index(max(rates)) == decided + 10
    assert rates[decided + 100 :] == [8e-4] * (1000 - decided - 100)


def test_a_rate_that_was_too_high_stays_lower():
    actions, rates = run(scheduler(plateau_rate_boost=5.0), lambda step, rate: 2.5 if rate > 5e-4 else 2.0)
    assert list(actions) == [49, 69]
    assert "is kept" in actions[69]
    assert rates[50:] == pytest.approx([8e-4 / 5] * 950)


def test_a_falling_loss_is_no_plateau():
    def falling(step, rate):
        return 3 * 0.999**step

    assert run(scheduler(plateau_threshold=0.012), falling)[0] == {}
    assert run(scheduler(plateau_threshold=0.05), falling)[0] != {}


def test_a_restart_of_the_schedule_is_no_plateau():
    def follows(step, rate):  # falls with the rate, and jumps up at each restart
        return 2 + 1000 * rate

    restarts = {"learning_rate_schedule": "cosine_restarts", "plateau_patience": 150, "final_learning_rate_ratio": 0.01}
    assert run(scheduler(**restarts), follows)[0] == {}
    assert run(scheduler(**restarts), lambda step, rate: 2.5)[0] != {}


def test_nothing_happens_when_off_in_warm_up_and_near_the_end():
    for silent in ({"enable_plateau_breaker": False}, {"warmup_steps": 970}, {"warmup_steps": 850}):
        assert run(scheduler(**silent), lambda step, rate: 2.5)[0] == {}


@pytest.mark.parametrize("stop", [30, 60, 90])
def test_the_state_is_restored(stop):
    whole, first, second = scheduler(), scheduler(), scheduler()
    for step in range(stop):
        assert whole.update(step, 2.5) == first.update(step, 2.5)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step in range(stop, 300):
        assert whole.learning_rate(step, 8e-4) == second.learning_rate(step, 8e-4)
        assert whole.update(step, 2.5) == second.update(step, 2.5)
