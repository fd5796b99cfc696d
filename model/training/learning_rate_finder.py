"""The learning-rate range test (arXiv:1506.01186): the rate rises at every step, and the loss tells where it helps."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from model.config.training import TrainSettings
from model.features.store import FeatureStore
from model.loop.devices import autocast_type, choose_devices
from model.loop.distributed import Processes
from model.threads import default_threads
from model.training.profiling import StepTimer
from model.training.state import RunState, TrainingError
from model.training.step import Computation, Objective, Precision, take_step

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9
"""Share of the running mean that a step keeps."""
MARGIN = 4.0
"""The proposed rate is the one of the lowest loss over this: there the loss is about to turn, and the warm-up of a real
run ends in thousands of steps at the rate, not in one."""
DIVERGED = 2.0
"""The test ends when the smoothed loss is so many times its lowest."""


@dataclass(frozen=True)
class RateTest:
    """Rates tried, the smoothed loss after each, and the rate to train with."""

    rates: list[float]
    losses: list[float]
    proposed: float


def find_learning_rate(config: TrainSettings, features: Path, output: Path, steps: int = 150) -> RateTest:
    """Run the test on a fresh model; its weights are thrown away.

    Args:
        config: Settings of the run that the rate is for.
        features: A feature store.
        output: Folder for `learning_rate.json` and `learning_rate.png`.
        steps: From the lowest rate to the highest, in equal factors.

    Raises:
        TrainingError: the loss never fell, so that no rate can be proposed.
    """
    settings = config.training
    devices = choose_devices(settings)
    torch.set_num_threads(settings.num_threads or default_threads())
    store = FeatureStore.of(features)
    store.check(config.audio)
    state = RunState(config, store, output / "checkpoints", devices, Processes())
    precision = Precision(devices.model, autocast_type(settings, devices.model), not settings.enable_static_shapes)
    objective = Objective(state.model, config.loss, precision)
    computation = Computation(objective, precision, state.scaler, state.processes, StepTimer(devices.model))
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for number in range(steps):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / (steps - 1))
        loss = take_step(state, computation, next(state.batches), rate).objective
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed = mean / (1 - SMOOTHING ** (number + 1))
        rates.append(rate)
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
    test = RateTest(rates, losses, rates[lowest] / MARGIN)
    output.mkdir(parents=True, exist_ok=True)
    (output / "learning_rate.json").write_text(json.dumps(asdict(test), indent=1), "utf-8")
    draw(test, output / "learning_rate.png")
    return test


def draw(test: RateTest, path: Path) -> None:
    """The curve, with the proposed rate marked."""
    from matplotlib.figure import Figure  # heavy, and only needed here

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(test.rates, test.losses)
    axes.axvline(test.proposed, color="tab:orange", label=f"proposed: {test.proposed:.2g}")
    axes.set(xlabel="learning rate", ylabel="smoothed loss", title="learning-rate range test")
    axes.legend()
    figure.savefig(path, dpi=90)
