"""One optimizer step: learning rate, gradient accumulation over micro-batches, clipping, status, update."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel
from model.config.training import LossConfig
from model.loop.distributed import Processes, without_averaging
from model.training.guards import Clipping, clip_gradients
from model.training.losses import AVERAGED_OVER, loss_terms, loss_weights, weighted_sum
from model.training.optimization import learning_rate
from model.training.profiling import StepTimer
from model.training.state import RunState

PADDED = {"ids": "tokens", "durations": "tokens", **dict.fromkeys(("mel", "pitch", "voiced", "energy"), "frames")}
"""Batch field -> what its second dimension counts."""


@dataclass
class StepLoss:
    """Loss of one step over the whole batch: unweighted terms, and their weighted sum."""

    terms: dict[str, float]
    total: float


@dataclass(frozen=True)
class Precision:
    """How a step computes: device, autocast type (None: float32), whether padding may be cut to each part's need."""

    device: torch.device
    autocast: torch.dtype | None
    trim: bool


class Objective(nn.Module):
    """The weighted loss of a model as a module of its own, which several processes wrap.

    They wait for the gradient of each parameter that an output leads to. Of the model's own outputs some lead to
    parameters that no term with a weight does, whose gradients never come.
    """

    def __init__(self, model: AcousticModel, losses: LossConfig, precision: Precision) -> None:
        super().__init__()
        self.model, self.losses, self.precision = model, losses, precision

    def forward(
        self, batch: Batch, weights: dict[str, float], shares: dict[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What a part of a batch adds to the weighted sum, and to each unweighted term (without gradient).

        Args:
            batch: The part, on the device.
            weights: Of the terms.
            shares: Of the tokens, frames and clips of the whole batch that are in this part.
        """
        precision = self.precision.autocast
        with torch.autocast(self.precision.device.type, precision, enabled=precision is not None):
            output = self.model(batch)
        terms = loss_terms(output, batch, self.losses)
        terms = {name: term * shares[AVERAGED_OVER[name]] for name, term in terms.items()}
        return weighted_sum(terms, weights), {name: term.detach() for name, term in terms.items()}


@dataclass(frozen=True)
class Computation:
    """What computes the gradients of a run: all that stays the same from step to step.

    Attributes:
        objective: Of the model, or what wraps it for several processes.
        precision: Device and precision.
        scaler: Of the loss, for float16.
        processes: That train together.
        timer: Measures the parts of a step.
    """

    objective: nn.Module
    precision: Precision
    scaler: torch.amp.GradScaler
    processes: Processes
    timer: StepTimer


def gradients_that_fit(
    computation: Computation, batch: Batch, weights: dict[str, float], parts: int
) -> tuple[StepLoss, int]:
    """`accumulate_gradients`, in twice as many parts whenever memory does not suffice.

    Returns:
        The loss, and the parts that it took.

    Raises:
        RuntimeError: out of memory with a single clip, or beside other processes, which wait for this one's gradient.
    """
    random = torch.get_rng_state()
    while True:
        try:
            return accumulate_gradients(computation, batch, weights, parts), parts
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or parts >= len(batch.clip_ids) or computation.processes.world > 1:
                raise
        parts = min(2 * parts, len(batch.clip_ids))
        computation.objective.zero_grad(set_to_none=True)
        torch.set_rng_state(random)
        if computation.precision.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def accumulate_gradients(computation: Computation, batch: Batch, weights: dict[str, float], parts: int) -> StepLoss:
    """Add the gradient of a batch to `.grad`, in `parts` parts, scaled.

    Args:
        computation: Of the run.
        batch: On the host.
        weights: Of the loss terms in this step.
        parts: At least 1.
    """
    objective, precision, processes = computation.objective, computation.precision, computation.processes
    scaler, timer = computation.scaler, computation.timer
    pieces = split_batch(batch, parts, precision.trim)
    totals = processes.sum(counts(batch))
    sums: dict[str, Tensor] = {}
    for number, piece in enumerate(pieces, start=1):
        shares = dict(zip(("tokens", "frames", "clips"), (counts(piece) / totals).tolist(), strict=True))
        with timer("transfer"):
            piece_there = piece.to(precision.device)
        # Forward as well as backward: whether gradients are averaged is decided on the way there.
        with without_averaging(objective) if number < len(pieces) else nullcontext():
            with timer("forward"):
                loss, terms = objective(piece_there, weights, shares)
            with timer("backward"):
                scaler.scale(loss * processes.world).backward()  # averaged over the processes, so multiplied first
        for name, term in {**terms, "": loss.detach()}.items():
            sums[name] = sums.get(name, 0.0) + term
    with timer("backward"):
        values = processes.sum(torch.stack(list(sums.values()))).tolist()  # here a GPU is waited for
    by_name = dict(zip(sums, values, strict=True))
    return StepLoss(total=by_name.pop(""), terms=by_name)


def counts(batch: Batch) -> Tensor:
    """(3,) float64 tokens, frames and clips of a batch."""
    return torch.tensor(
        [int(batch.token_lengths.sum()), int(batch.mel_lengths.sum()), len(batch.clip_ids)], dtype=torch.float64
    )


def split_batch(batch: Batch, parts: int, trim: bool) -> list[Batch]:
    """A batch as at most `parts` batches of consecutive clips, sizes differing by one at most.

    Args:
        batch: B clips, sorted by length, so that parts need less padding than the whole.
        parts: At least 1; never more parts than clips.
        trim: Cut the padding that a part does not need; static shapes keep it.
    """
    if parts == 1:
        return [batch]
    rows = np.array_split(np.arange(len(batch.clip_ids)), min(parts, len(batch.clip_ids)))
    return [_rows(batch, int(part[0]), int(part[-1]) + 1, trim) for part in rows]


def _rows(batch: Batch, start: int, end: int, trim: bool) -> Batch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    values = {name: value[start:end] for name, value in values.items() if value is not None}
    if trim:
        needed = {"tokens": int(values["token_lengths"].max()), "frames": int(values["mel_lengths"].max())}
        padded = {name: needed[kind] for name, kind in PADDED.items() if name in values}
        values |= {name: values[name][:, :length] for name, length in padded.items()}
    return replace(batch, **values)


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
