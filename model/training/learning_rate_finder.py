"""The learning-rate range test (arXiv:1506.01186): a few steps with a learning rate that rises at every step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from model.config.training import TrainSettings
from model.features.store import FeatureStore
from model.files import write_json
from model.loop.devices import autocast_type, choose_devices
from model.loop.distributed import Processes
from model.threads import default_threads
from model.training.profiling import StepTimer
from model.training.state import TrainingError, TrainingState
from model.training.step import ModelWithLoss, Precision, StepContext, take_step

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9
"""Decay of the running mean of the loss."""
MARGIN = 4.0
"""Ratio of the learning rate with the lowest loss to the proposed one. At the former the loss is about to rise, and a
real run trains with its learning rate for thousands of steps instead of one."""
DIVERGED = 2.0
"""Ratio of the smoothed loss to its lowest value at which the test ends."""


@dataclass(frozen=True)
class LearningRateTest:
    """Result of the range test: learning rates, the smoothed loss at each, and the proposed learning rate."""

    learning_rates: list[float]
    losses: list[float]
    proposed: float


def find_learning_rate(config: TrainSettings, features: Path, output: Path, steps: int = 150) -> LearningRateTest:
    """Runs the test on a new model, which is discarded.

    Args:
        config: Settings of the run that the learning rate is for.
        features: A feature store.
        output: Folder for `learning_rate.json` and `learning_rate.png`.
        steps: Number of steps from the lowest learning rate to the highest, in equal ratios.

    Raises:
        TrainingError: the loss never fell, so that no learning rate can be proposed.
    """
    settings = config.training
    devices = choose_devices(settings)
    torch.set_num_threads(settings.num_threads or default_threads())
    store = FeatureStore.of(features)
    store.check(config.audio)
    state = TrainingState(
        config=config, store=store, folder=output / "checkpoints", devices=devices, processes=Processes()
    )
    precision = Precision(devices.model, autocast_type(settings, devices.model), not settings.enable_static_shapes)
    context = StepContext(
        model=ModelWithLoss(state.model, config.loss, precision, state.consistency),
        precision=precision,
        scaler=state.scaler,
        processes=state.processes,
        timer=StepTimer(devices.model),
    )
    learning_rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for number in range(steps):
        learning_rate = LOWEST * (HIGHEST / LOWEST) ** (number / (steps - 1))
        loss = take_step(state, context, next(state.batches), learning_rate).objective
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed = mean / (1 - SMOOTHING ** (number + 1))
        learning_rates.append(learning_rate)
        losses.append(smoothed)
        if smoothed > DIVERGED * min(losses):
            break
    state.batches.close()
    lowest = losses.index(min(losses))
    if lowest == 0:
        raise TrainingError(
            f"{features}: the loss rose from the first step of the range test on; check the data with "
            "`myxtts corpus validate` and the loss weights with `myxtts config check`"
        )
    test = LearningRateTest(learning_rates, losses, learning_rates[lowest] / MARGIN)
    write_json(output / "learning_rate.json", asdict(test))
    draw(test, output / "learning_rate.png")
    return test


def draw(test: LearningRateTest, path: Path) -> None:
    """Plots the smoothed loss over the learning rate, with the proposed one marked."""
    from matplotlib.figure import Figure  # slow to import, and needed here only

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(test.learning_rates, test.losses)
    axes.axvline(test.proposed, color="tab:orange", label=f"proposed: {test.proposed:.2g}")
    axes.set(xlabel="learning rate", ylabel="smoothed loss", title="learning-rate range test")
    axes.legend()
    figure.savefig(path, dpi=90)
