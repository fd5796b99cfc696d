"""One optimizer step: learning rate, gradient accumulation over micro-batches, clipping, status, update, metrics."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel
from model.config.training import LossConfig
from model.features.batching import FRAME_MULTIPLE, TOKEN_MULTIPLE, round_up
from model.loop.devices import compiled_graphs
from model.loop.distributed import Processes, without_averaging
from model.training.losses import AVERAGED_OVER, SpeakerConsistency, loss_terms, loss_weights, weighted_sum
from model.training.profiling import StepTimer
from model.training.stability import Clipping, StepStatus, clip_gradients
from model.training.state import TrainingState

PADDED_DIMENSION = {
    **dict.fromkeys(("ids", "durations"), "tokens"),
    **dict.fromkeys(("mel", "pitch", "voiced", "energy"), "frames"),
}
"""Field of a batch -> unit that its padded second dimension counts."""


@dataclass(frozen=True)
class StepLoss:
    """Loss of one step over the whole batch: unweighted terms, and their weighted sum."""

    terms: dict[str, float]
    total: float


@dataclass(frozen=True)
class Precision:
    """Device and numerical precision of a step.

    Attributes:
        device: Device of the model.
        autocast: Type that autocast computes in; None for float32.
        trim: Whether each micro-batch is cut to the lengths of its own clips; static shapes keep the padding.
    """

    device: torch.device
    autocast: torch.dtype | None
    trim: bool


class ModelWithLoss(nn.Module):
    """Acoustic model and weighted loss as one module, which `Processes.wrap` wraps.

    Distributed training waits for the gradient of every parameter that an output of the wrapped module depends on. Some
    outputs of the acoustic model depend on parameters that no weighted term reaches; the loss does not.
    """

    def __init__(
        self,
        model: AcousticModel,
        losses: LossConfig,
        precision: Precision,
        consistency: SpeakerConsistency | None = None,
    ) -> None:
        super().__init__()
        self.model, self.losses, self.precision, self.consistency = model, losses, precision, consistency

    def forward(
        self, batch: Batch, weights: dict[str, float], shares: dict[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the contributions of a micro-batch to the weighted sum, and to each unweighted term (detached).

        Args:
            batch: Micro-batch, on the device.
            weights: Weight of each term.
            shares: Shares of the whole batch's tokens, frames and clips that are in this micro-batch.
        """
        precision = self.precision.autocast
        with torch.autocast(self.precision.device.type, precision, enabled=precision is not None):
            output = self.model(batch)
        terms = loss_terms(output, batch, self.losses, self.consistency)
        terms = {name: term * shares[AVERAGED_OVER[name]] for name, term in terms.items()}
        return weighted_sum(terms, weights), {name: term.detach() for name, term in terms.items()}


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """Model, precision, processes and timer of a run: the parts of a step that do not change.

    Attributes:
        model: A `ModelWithLoss`, or its wrapper for several processes.
        precision: Device and precision.
        scaler: Loss scaler, enabled for float16.
        processes: Processes that train together.
        timer: Measures the phases of a step.
        aligner_frozen: Whether the aligner was frozen when the model was wrapped (`DurationCache`).
    """

    model: nn.Module
    precision: Precision
    scaler: torch.amp.GradScaler
    processes: Processes
    timer: StepTimer
    aligner_frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """Result of one step.

    Attributes:
        loss: Unweighted terms and their weighted sum.
        objective: Sum of the terms with constant weights, weighted as in the settings: comparable over a whole run.
        weights: Weights of this step, including schedules and adaptation.
        learning_rate: Learning rate before the factors of the parameter groups.
        clipping: Result of clipping the gradient.
        status: `ok`, or why the step was bad; a step that is not finite changed no weight.
        micro_batches: Number of micro-batches; more than before when memory did not suffice.
    """

    loss: StepLoss
    objective: float
    weights: dict[str, float]
    learning_rate: float
    clipping: Clipping
    status: StepStatus
    micro_batches: int


def take_step(state: TrainingState, context: StepContext, batch: Batch, learning_rate: float | None = None) -> Step:
    """Trains on one batch.

    Args:
        state: State of the run; the caller advances its step.
        context: Context of `state.model`.
        batch: On the host.
        learning_rate: Replaces the scheduled learning rate.
    """
    settings = state.config.training
    if learning_rate is None:
        learning_rate = state.learning_rate
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate * group["learning_rate_scale"]
    weights = loss_weights(state.config.loss, state.step / settings.max_steps)
    if state.adaptive:
        weights = state.adaptive.weights(weights)

    context.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    loss, micro_batches = accumulate_within_memory(context, batch, weights, state.micro_batches)
    objective = sum(weight * loss.terms[name] for name, weight in state.constant_weights.items() if name in loss.terms)
    with context.timer("optimizer"):
        state.scaler.unscale_(state.optimizer)
        clipping = clip_gradients(state.model, settings.gradient_clip_value, settings.gradient_clip_norm)
        overflow = _scale_too_large(state, loss, clipping)
        status: StepStatus = "ok" if overflow else state.divergence.classify(objective, clipping.norm)
        if math.isfinite(loss.total) and math.isfinite(clipping.norm):
            state.scaler.step(state.optimizer)
        state.scaler.update()
        state.average.update(state.model, state.step)
    if status == "ok" and state.adaptive:
        state.adaptive.update(loss.terms)
    return Step(
        loss=loss,
        objective=objective,
        weights=weights,
        learning_rate=learning_rate,
        clipping=clipping,
        status=status,
        micro_batches=micro_batches,
    )


def accumulate_within_memory(
    context: StepContext, batch: Batch, weights: dict[str, float], micro_batches: int
) -> tuple[StepLoss, int]:
    """Calls `accumulate_gradients`, and again with twice as many micro-batches whenever memory does not suffice.

    Returns:
        The loss, and the number of micro-batches that fitted.

    Raises:
        RuntimeError: out of memory with a single clip, or with several processes, where the others are waiting for this
            one's gradient.
    """
    random = torch.get_rng_state()
    while True:
        try:
            return accumulate_gradients(context, batch, weights, micro_batches), micro_batches
        except (MemoryError, RuntimeError) as error:
            smallest = micro_batches >= len(batch.clip_ids)
            if not is_out_of_memory(error) or smallest or context.processes.world_size > 1:
                raise
        micro_batches = min(2 * micro_batches, len(batch.clip_ids))
        context.model.zero_grad(set_to_none=True)
        torch.set_rng_state(random)
        if context.precision.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error means that memory did not suffice, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def accumulate_gradients(context: StepContext, batch: Batch, weights: dict[str, float], micro_batches: int) -> StepLoss:
    """Adds the scaled gradient of a batch to `.grad`, computed in micro-batches.

    Args:
        context: Context of the run.
        batch: On the host.
        weights: Weights of the loss terms in this step.
        micro_batches: At least 1.
    """
    precision, processes, timer = context.precision, context.processes, context.timer
    pieces = split_batch(batch, micro_batches, precision.trim)
    totals = processes.all_reduce_sum(batch_counts(batch))
    sums: dict[str, Tensor] = {}
    for number, piece in enumerate(pieces, start=1):
        shares = dict(zip(("tokens", "frames", "clips"), (batch_counts(piece) / totals).tolist(), strict=True))
        with timer("transfer"):
            on_device = piece.to(precision.device)
        # Around the forward pass too, since DDP decides there whether the backward pass averages the gradients.
        with without_averaging(context.model) if number < len(pieces) else nullcontext():
            with timer("forward"):
                loss, terms = context.model(on_device, weights, shares)
            with timer("backward"):
                # Multiplied by the number of processes, because averaging divides by it and the shares did already.
                context.scaler.scale(loss * processes.world_size).backward()
        for name, term in {**terms, "": loss.detach()}.items():
            sums[name] = sums[name] + term if name in sums else term
    with timer("backward"):
        values = processes.all_reduce_sum(torch.stack(list(sums.values()))).tolist()  # waits for the GPU
    by_name = dict(zip(sums, values, strict=True))
    return StepLoss(total=by_name.pop(""), terms=by_name)


def batch_counts(batch: Batch) -> Tensor:
    """Returns the numbers of tokens, frames and clips of a batch, (3,) float64."""
    return torch.tensor(
        [int(batch.token_lengths.sum()), int(batch.mel_lengths.sum()), len(batch.clip_ids)], dtype=torch.float64
    )


def split_batch(batch: Batch, micro_batches: int, trim: bool) -> list[Batch]:
    """Splits a batch into at most `micro_batches` batches of consecutive clips, whose sizes differ by at most one.

    Args:
        batch: B clips, sorted by length, so that a micro-batch needs less padding than the whole.
        micro_batches: At least 1; there are never more than clips.
        trim: Cut the padding that a micro-batch does not need, to a shape that recurs; static shapes keep it.
    """
    if micro_batches == 1:
        return [batch]
    rows = np.array_split(np.arange(len(batch.clip_ids)), min(micro_batches, len(batch.clip_ids)))
    return [_rows(batch, int(piece[0]), int(piece[-1]) + 1, trim) for piece in rows]


def _rows(batch: Batch, start: int, end: int, trim: bool) -> Batch:
    """Returns the clips `start` to `end` (exclusive) of a batch."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    values = {name: value[start:end] for name, value in values.items() if value is not None}
    if trim:
        needed = {
            "tokens": round_up(int(values["token_lengths"].max()), TOKEN_MULTIPLE),
            "frames": round_up(int(values["mel_lengths"].max()), FRAME_MULTIPLE),
        }
        lengths = {name: needed[unit] for name, unit in PADDED_DIMENSION.items() if name in values}
        values |= {name: values[name][:, :length] for name, length in lengths.items()}
    return replace(batch, **values)


def _scale_too_large(state: TrainingState, loss: StepLoss, clipping: Clipping) -> bool:
    """Returns whether float16 overflowed because of the loss scale alone, which the scaler lowers by itself."""
    return (
        state.scaler.is_enabled()
        and state.scaler.get_scale() > 1
        and math.isfinite(loss.total)
        and not math.isfinite(clipping.norm)
    )


class StepMetrics:
    """Collects steps and turns them into the metrics of a log line: losses of the last step, means over the interval.

    Args:
        count_graphs: Report the number of compiled graphs, which must stop growing after the first epoch.
        processes: Number of processes that train together; each computes about as many frames as this one.
    """

    def __init__(self, *, count_graphs: bool, processes: int = 1) -> None:
        self._count_graphs, self._processes = count_graphs, processes
        self._steps: list[Step] = []
        self._frames = 0
        self._shapes: set[tuple[int, ...]] = set()
        self._started = time.monotonic()

    def add(self, batch: Batch, step: Step) -> None:
        """Records a step and the batch that it trained on."""
        self._steps.append(step)
        self._frames += int(batch.mel_lengths.sum())
        self._shapes.add((*batch.ids.shape[:2], batch.mel.shape[1]))

    def lap(self) -> dict[str, float]:
        """Returns the metrics of the steps since the last lap, of which there is at least one, and starts a new lap.

        Returns:
            `train/<term>`, `weight/<term>` and the learning rate of the last step; `train/objective`, the shares of
            clipped gradients and `train/frames_per_second` over the lap; distinct shapes and graphs of the whole run.
        """
        count, last = len(self._steps), self._steps[-1]
        values = {f"train/{name}": value for name, value in last.loss.terms.items()}
        values |= {f"weight/{name}": weight for name, weight in last.weights.items()}
        values |= {
            "train/loss": last.loss.total,
            "train/objective": sum(step.objective for step in self._steps) / count,
            "train/learning_rate": last.learning_rate,
            "train/gradient_norm": last.clipping.norm,
            "train/clipped_norm_share": sum(step.clipping.clipped_norm for step in self._steps) / count,
            "train/clipped_element_share": sum(step.clipping.clipped_elements for step in self._steps) / count,
            "train/frames_per_second": self._processes * self._frames / (time.monotonic() - self._started),
            "train/distinct_shapes": float(len(self._shapes)),
        }
        if self._count_graphs:
            values["train/compiled_graphs"] = float(compiled_graphs())
        self._steps, self._frames, self._started = [], 0, time.monotonic()
        return values
