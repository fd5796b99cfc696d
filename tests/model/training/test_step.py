"""One optimizer step: bad steps, the loss scale of float16, learning rates of groups, restored state, metrics."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.features.store import FeatureStore
from model.loop.devices import Devices
from model.loop.distributed import Processes
from model.training import step as step_module
from model.training.profiling import StepTimer
from model.training.stability import Clipping
from model.training.state import TrainingState
from model.training.step import ModelWithLoss, Precision, Step, StepContext, StepLoss, StepMetrics, take_step

CPU = torch.device("cpu")
STILL = {"model.dropout": 0.0, "model.predictor_dropout": 0.0, "model.aligner_dropout": 0.0}
FLOAT16 = {"training.use_mixed_precision": True, "training.mixed_precision": "float16"}
"""Settings under which a run has a loss scaler. The tests compute in float32, so that only the scaler differs."""


@pytest.fixture
def open_state(tmp_path, small_settings, small_features):
    """Returns a function that opens the state of a new run with these settings in a folder."""
    opened = []

    def build(settings: dict | None = None, folder: str = "run") -> TrainingState:
        config = TrainSettings.of(resolve(None, None, {**small_settings, **STILL, **(settings or {})}).config)
        store = FeatureStore(Path(small_features))
        opened.append(
            TrainingState(
                config=config, store=store, folder=tmp_path / folder, devices=Devices(CPU, CPU), processes=Processes()
            )
        )
        return opened[-1]

    yield build
    for state in opened:
        state.batches.close()


def stepper(state: TrainingState) -> Callable[..., Step]:
    """Returns a function that takes the next step of a run."""
    precision = Precision(CPU, None, trim=True)
    context = StepContext(
        model=ModelWithLoss(state.model, state.config.loss, precision),
        precision=precision,
        scaler=state.scaler,
        processes=state.processes,
        timer=StepTimer(CPU),
    )

    def step(learning_rate: float | None = None) -> Step:
        taken = take_step(state, context, next(state.batches), learning_rate)
        state.step += 1
        return taken

    return step


def weights_of(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.model.state_dict().items()}


def unmoved(before: dict[str, torch.Tensor], state: TrainingState) -> bool:
    return all(torch.equal(before[name], tensor) for name, tensor in state.model.state_dict().items())


@pytest.fixture
def scale_loss(monkeypatch):
    """Returns a function that multiplies the mel term of all later steps by a factor."""
    original = step_module.loss_terms

    def apply(factor: float) -> None:
        def scaled(*arguments):
            terms = original(*arguments)
            return {**terms, "mel": terms["mel"] * factor}

        monkeypatch.setattr(step_module, "loss_terms", scaled)

    return apply


@pytest.mark.parametrize(("factor", "status"), [(math.nan, "skipped"), (math.inf, "skipped"), (1e6, "diverged")])
def test_a_bad_step_is_not_recorded_by_the_adaptive_weights(open_state, scale_loss, factor, status):
    state = open_state({"training.enable_adaptive_loss_weights": True})
    step = stepper(state)
    assert step().status == "ok"
    recorded = dict(state.adaptive.means)
    assert state.adaptive.steps == 1
    scale_loss(factor)
    assert step().status == status
    assert state.adaptive.steps == 1
    assert state.adaptive.means == recorded
    scale_loss(1.0)
    assert step().status == "ok"
    assert state.adaptive.steps == 2


@pytest.mark.parametrize("factor", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [{}, FLOAT16])
def test_a_step_that_is_not_finite_moves_no_weight(open_state, scale_loss, factor, settings):
    state = open_state(settings)
    step = stepper(state)
    step()
    before = weights_of(state)
    scale_loss(factor)
    assert step().status == "skipped"
    assert unmoved(before, state)
    scale_loss(1.0)
    assert step().status == "ok"
    assert not unmoved(before, state)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_gradients_are_unscaled_before_they_are_clipped(open_state, micro_batches):
    clipping = {"training.gradient_clip_norm": 0.3, "training.gradient_clip_value": 0.02}
    clipping["training.gradient_accumulation_steps"] = micro_batches
    plain, scaled = (open_state({**clipping, **precision}) for precision in ({}, FLOAT16))
    assert scaled.scaler.get_scale() > 1000
    for _ in range(2):
        for state, step in ((plain, stepper(plain)), (scaled, stepper(scaled))):
            taken = step()
            assert taken.micro_batches == micro_batches
            assert 0 < taken.clipping.clipped_elements < 0.5
            norm = torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None]).norm()
            assert float(norm) == pytest.approx(min(taken.clipping.norm, 0.3), rel=1e-4)
            if state is plain:
                expected = taken.clipping
        assert taken.clipping.norm == pytest.approx(expected.norm, rel=1e-4)
        assert taken.clipping.clipped_elements == pytest.approx(expected.clipped_elements, abs=1e-4)
    weights = weights_of(plain)
    for name, tensor in weights_of(scaled).items():
        torch.testing.assert_close(tensor, weights[name], atol=2e-5, rtol=1e-4)


def test_an_overflow_of_the_scale_alone_lowers_the_scale_and_is_no_bad_step(open_state):
    state = open_state(FLOAT16)
    step = stepper(state)
    before, largest = weights_of(state), 1e38
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": largest})
    taken = step()
    assert math.isfinite(taken.loss.total)
    assert not math.isfinite(taken.clipping.norm)
    assert taken.status == "ok"
    assert state.divergence.consecutive_bad_steps == 0
    assert unmoved(before, state)
    assert state.scaler.get_scale() == pytest.approx(largest * state.scaler.get_backoff_factor())


def test_the_aligner_learns_at_its_own_multiple_of_the_learning_rate(open_state):
    state = open_state({"training.aligner_learning_rate_scale": 3.0, "training.weight_decay": 0.0})
    before = weights_of(state)
    stepper(state)(learning_rate=2e-4)
    largest = {True: 0.0, False: 0.0}  # the first step of Adam moves a weight by its learning rate
    for name, parameter in state.model.named_parameters():
        moved = float((parameter.detach() - before[name]).abs().max())
        largest[name.startswith("aligner.")] = max(largest[name.startswith("aligner.")], moved)
    assert largest[True] == pytest.approx(3 * 2e-4, rel=0.01)
    assert largest[False] == pytest.approx(2e-4, rel=0.01)


def test_resuming_restores_every_value_that_has_changed(open_state, scale_loss):
    """Every value differs from its initial one, so that a value that is not restored is detected."""
    settings = {
        **FLOAT16,
        "training.gradient_accumulation_steps": 2,
        "training.enable_adaptive_loss_weights": True,
        "training.enable_plateau_breaker": True,
        "training.warmup_steps": 0,
    }
    state = open_state(settings)
    step = stepper(state)
    for factor in (1.0, 1.0, 1e6):
        scale_loss(factor)
        state.plateau.update(state.step, step().objective)
    state.micro_batches = 3  # two did not fit into memory
    state.divergence.rollbacks = 1
    state.adaptive.factors["mel"] = 0.8
    state.plateau.plateau_objective, state.plateau.lower_rate_helps, state.plateau.decided_at = 2.0, False, 2
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 512.0})
    state.durations.mean = 0.6
    state.metrics = {"validation/mel": 0.7}
    state.save()

    torch.manual_seed(99)
    resumed = open_state(settings)
    assert resumed.resume()
    assert (resumed.step, resumed.saved_step, resumed.micro_batches) == (3, 3, 3)
    assert resumed.scaler.get_scale() == 512.0
    for part in ("divergence", "adaptive", "plateau", "durations", "scaler", "batches"):
        assert getattr(resumed, part).state_dict() == getattr(state, part).state_dict()
    assert resumed.divergence.consecutive_bad_steps == 1
    assert resumed.metrics == state.metrics
    assert next(resumed.batches).clip_ids == next(state.batches).clip_ids
    for name, tensor in state.average.state_dict().items():
        assert torch.equal(resumed.average.state_dict()[name], tensor)
    assert unmoved(weights_of(state), resumed)


def test_a_rollback_keeps_the_number_of_micro_batches_and_lowers_the_learning_rate(open_state):
    state = open_state({"training.rollback_rate_factor": 0.25, "training.gradient_accumulation_steps": 2})
    state.save()
    step = stepper(state)
    step()
    state.micro_batches = 4
    before = step().learning_rate  # of step 1
    state.roll_back()
    assert (state.step, state.micro_batches) == (0, 4)
    step()
    assert step().learning_rate == pytest.approx(0.25 * before)


def test_frames_per_second_are_those_of_all_processes(monkeypatch):
    clock = iter([0.0, 2.0, 2.0] * 2)
    monkeypatch.setattr(step_module.time, "monotonic", lambda: next(clock))
    batch = SimpleNamespace(mel_lengths=torch.tensor([300, 100]), ids=torch.zeros(2, 5, 2), mel=torch.zeros(2, 300, 80))
    step = Step(
        loss=StepLoss({"mel": 0.5}, 0.5),
        objective=0.5,
        weights={"mel": 1.0},
        learning_rate=1e-3,
        clipping=Clipping(norm=1.0, clipped_elements=0.0, clipped_norm=False),
        status="ok",
        micro_batches=1,
    )
    for processes, speed in ((1, 200.0), (4, 800.0)):
        metrics = StepMetrics(count_graphs=False, processes=processes)
        metrics.add(batch, step)
        assert metrics.lap()["train/frames_per_second"] == pytest.approx(speed)
