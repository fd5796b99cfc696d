"""One optimiser step: rate, weights, gradient of the whole batch, clipping, verdict, update."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.features.batching import Batch
from model.training.accumulation import Computation, StepLoss, gradients_that_fit
from model.training.guards import Clipping, clip_gradients
from model.training.losses import loss_weights
from model.training.run_state import RunState
from model.training.schedule import learning_rate


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        loss: Unweighted terms and their weighted sum.
        objective: Terms without a schedule, with their settings' weights: comparable over a whole run.
        weights: Of this step, schedules and adaptation included.
        rate: Learning rate, before the groups' own factors.
        clipping: Of the gradient.
        verdict: '' or what was wrong; a step that is not finite changed no weight.
        parts: That the batch was computed in; more than before when memory did not suffice.
    """

    loss: StepLoss
    objective: float
    weights: dict[str, float]
    rate: float
    clipping: Clipping
    verdict: str
    parts: int


def take_step(state: RunState, computation: Computation, batch: Batch, rate: float | None = None) -> Step:
    """Train on one batch.

    Args:
        state: Of the run; its step is counted by the caller.
        computation: Of `state.model`.
        batch: On the host.
        rate: Learning rate instead of the scheduled one.
    """
    settings = state.config.training
    if rate is None:
        rate = state.guard.rate_factor * state.plateau.rate(state.step, learning_rate(state.step, settings))
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]
    weights = loss_weights(state.config.loss, state.step / settings.max_steps)
    if state.adaptive:
        weights = state.adaptive.weights(weights)

    computation.objective.train()
    state.optimizer.zero_grad(set_to_none=True)
    loss, parts = gradients_that_fit(computation, batch, weights, state.parts)
    objective = sum(weight * loss.terms[name] for name, weight in state.base_weights.items() if name in loss.terms)
    with computation.timer("optimizer"):
        state.scaler.unscale_(state.optimizer)
        clipping = clip_gradients(state.model, settings.gradient_clip_value, settings.gradient_clip_norm)
        verdict = "" if _scale_too_large(state, loss, clipping) else state.guard.judge(objective, clipping.norm)
        if math.isfinite(loss.total) and math.isfinite(clipping.norm):
            state.scaler.step(state.optimizer)
        state.scaler.update()
        state.average.update(state.model, state.step)
    if not verdict and state.adaptive:
        state.adaptive.update(loss.terms)
    return Step(loss, objective, weights, rate, clipping, verdict, parts)


def _scale_too_large(state: RunState, loss: StepLoss, clipping: Clipping) -> bool:
    """Whether float16 overflowed for its scale alone, which the scaler lowers by itself: the batch is not at fault."""
    return (
        state.scaler.is_enabled()
        and state.scaler.get_scale() > 1
        and math.isfinite(loss.total)
        and not math.isfinite(clipping.norm)
    )
