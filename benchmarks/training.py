"""Benchmarks the options of training; prints a table of speed and one of numerical differences.

    python -m benchmarks.training

Speed: each row is a new run of the same model on the same features. The first half of the run (at least one epoch,
which includes compilation) is warm-up, the second half is measured. Each row is the fastest of `--rounds` runs.
Numbers: loss and gradient of one step with the same weights and clips, against float32 in one batch without padding.

On a GPU, `normal` is trained for a minute; then its utilization is sampled every 100 ms for another minute and plotted:

    python -m benchmarks.training --features <store> --model-size normal --gpu-seconds 60 --plot docs/gpu.png
"""

import argparse
import logging
import multiprocessing
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.generated_corpus import SETTINGS, small_features
from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel
from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.features.batching import FRAME_MULTIPLE, TOKEN_MULTIPLE, pad_batch
from model.features.loader import Loader
from model.features.store import FeatureStore
from model.loop.distributed import Processes
from model.loop.reporting import read_history
from model.training.adaptation import model_dimensions
from model.training.losses import loss_weights
from model.training.profiling import StepTimer
from model.training.step import ModelWithLoss, Precision, StepContext, accumulate_gradients
from model.training.trainer import train

CPU = torch.device("cpu")
STATIC = {"enable_static_shapes": True, "num_shape_buckets": 2}


@dataclass(frozen=True)
class Variant:
    """A run with `options`, which is compared with the run named `against`."""

    name: str
    against: str
    options: dict[str, Any]


DEFAULT = "default settings"
VARIANTS = (
    Variant(DEFAULT, DEFAULT, {}),
    Variant("without prefetch", DEFAULT, {"buffer_size": 0}),
    Variant("without bfloat16", DEFAULT, {"use_mixed_precision": False}),
    Variant("with checkpointing", DEFAULT, {"enable_gradient_checkpointing": True}),
    Variant("with accumulation, 4 micro-batches", DEFAULT, {"gradient_accumulation_steps": 4}),
    Variant("with adaptive loss weights", DEFAULT, {"enable_adaptive_loss_weights": True}),
    Variant("with static shapes", DEFAULT, STATIC),
    Variant("with static shapes, compiled", "with static shapes", {**STATIC, "enable_compile": True}),
)
SPEED_COLUMNS = ("run", "ms per step", "to default", "frames/s", "data wait", "shapes", "graphs", "after the 1st epoch")
NUMBER_COLUMNS = ("computed", "loss differs by", "gradient differs by", "kept for the backward pass")
PUBLISHED = 148_000
"""Frames per second of FastPitch in mixed precision on one A100, as published by NVIDIA."""


def settings(size: str, **training: Any) -> TrainSettings:
    overrides = {f"training.{key}": value for key, value in training.items()}
    return TrainSettings.of(resolve(None, None, {**SETTINGS, "model_size": size, **overrides}).config)


def speed(store: FeatureStore, folder: Path, size: str, steps: int, options: dict[str, Any]) -> dict[str, float]:
    """Returns the logged values of the second half of a run."""
    half = steps // 2
    run = {"max_steps": 2 * half, "log_interval": half, "warmup_steps": 1}
    run |= {"enable_evaluation": False, "checkpoint_interval": 10 * steps}
    config = settings(size, **run, **options)
    loader = Loader(store, config)
    epoch = len(loader.batches.sampler.order(0))
    loader.close()
    if half < epoch:
        raise SystemExit(f"an epoch has {epoch} batches: give --steps {2 * epoch} or more, to measure after the first")
    train(config, store, folder)
    first, second = (line for line in read_history(folder / "history.jsonl") if "train/mel" in line)
    graphs = second.get("train/compiled_graphs", 0.0)
    return second | {"graphs": graphs, "later_graphs": graphs - first.get("train/compiled_graphs", 0.0)}


def numbers(store: FeatureStore, size: str) -> list[list[str]]:
    """Returns rows for one step computed in several ways, without dropout, whose masks depend on the shape."""
    no_dropout = dict.fromkeys(("dropout", "predictor_dropout", "predictor_input_dropout", "aligner_dropout"), 0.0)
    config = settings(size, buffer_size=0)
    config = config.model_copy(update={"model": config.model.model_copy(update=no_dropout)})
    plain = next(Loader(store, config))
    frames = plain.mel.shape[1]
    padded = pad_batch(plain, plain.ids.shape[1] + TOKEN_MULTIPLE, frames + FRAME_MULTIPLE)

    def step(batch: Batch, micro_batches: int = 1, kind: torch.dtype | None = None, checkpointing: bool = False) -> Any:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(0)
        model = AcousticModel(config.model, model_dimensions(store)).train()
        model.encoder.checkpointing = model.decoder.checkpointing = checkpointing
        weights, scaler = loss_weights(config.loss, 1.0), torch.amp.GradScaler("cpu", enabled=False)
        precision = Precision(CPU, kind, trim=False)
        model_with_loss = ModelWithLoss(model, config.loss, precision)
        context = StepContext(
            model=model_with_loss, precision=precision, scaler=scaler, processes=Processes(), timer=StepTimer(CPU)
        )
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = accumulate_gradients(context, batch, weights, micro_batches).total
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        return loss, gradient, sum(size for place, size in kept.items() if place not in own)

    def row(name: str, result: Any) -> list[str]:
        loss, gradient, kept = result
        difference = float((gradient - exact[1]).norm() / exact[1].norm())
        return [name, f"{abs(loss / exact[0] - 1):.1e}", f"{difference:.1e}", f"{kept / 2**20:.0f} MiB"]

    exact = step(plain)
    return [
        row("in one batch, float32", exact),
        row(f"padded further, {frames} to {padded.mel.shape[1]} frames", step(padded)),
        row("in 4 micro-batches", step(plain, micro_batches=4)),
        row("checkpointed", step(plain, checkpointing=True)),
        row("in bfloat16", step(plain, kind=torch.bfloat16)),
    ]


def gpu_report(features: Path, folder: Path, size: str, seconds: int, plot: Path | None) -> str:
    """Returns GPU utilization and frames per second of a training process, after a minute of warm-up."""
    options = {"device": "cuda", "enable_static_shapes": True, "buffer_size": 100, "num_workers": 4}
    config = settings(size, **options, enable_evaluation=False, log_interval=50)
    training = multiprocessing.get_context("spawn").Process(target=train, args=(config, features, folder), daemon=True)
    training.start()
    history = folder / "history.jsonl"
    while not (history.is_file() and any("train/mel" in line for line in read_history(history))):
        if not training.is_alive():
            raise SystemExit("the training ended before it logged a step; its error is above")
        time.sleep(1.0)
    time.sleep(60)
    samples = sample_utilization(seconds)
    speeds = [line["train/frames_per_second"] for line in read_history(history) if "train/mel" in line]
    training.kill()
    training.join()
    if plot is not None:
        plot_utilization(samples, plot)
    return (
        f"{torch.cuda.get_device_name()}: utilization mean {fmean(samples):.1f} % (bar 95), lowest {min(samples)} % "
        f"(bar 80); {speeds[-1]:.0f} frames/s, {speeds[-1] / PUBLISHED:.2f} of the published {PUBLISHED}"
    )


def sample_utilization(seconds: int) -> list[int]:
    """Returns the GPU utilization in percent, sampled every 100 ms."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100", "-i", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        samples = [int(process.stdout.readline()) for _ in range(10 * seconds)]
        process.terminate()
    return samples


def plot_utilization(samples: list[int], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([number / 10 for number in range(len(samples))], samples)
    axes.set(xlabel="seconds", ylabel="utilization (%)", ylim=(0, 102), title="GPU utilization in training")
    figure.savefig(path, dpi=90)


def speed_table(store: FeatureStore, place: Path, size: str, steps: int, rounds: int) -> list[str]:
    """Returns rows with the fastest of each variant's runs, because other load only makes a run slower."""
    best: dict[str, dict[str, float]] = {}
    for turn in range(rounds):
        for number, variant in enumerate(VARIANTS):
            values = speed(store, place / f"{turn}-{number}", size, steps, variant.options)
            if turn == 0 or values["time/step_ms"] < best[variant.name]["time/step_ms"]:
                best[variant.name] = values
    rows: list[str] = []
    for variant in VARIANTS:
        values, base = best[variant.name], best[variant.against]
        compared = f"x {values['time/step_ms'] / base['time/step_ms']:.2f}"
        cells = (
            variant.name,
            f"{values['time/step_ms']:.0f}",
            compared if variant.against == DEFAULT else f"{compared} of {variant.against}",
            f"{values['train/frames_per_second']:.0f}",
            f"{100 * values['time/data_share']:.2f} %",
            f"{values['train/distinct_shapes']:.0f}",
            f"{values['graphs']:.0f}",
            f"{values['later_graphs']:.0f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, help="feature store [default: generated, 28 sentences]")
    parser.add_argument("--model-size", default="tiny")
    parser.add_argument("--steps", type=int, default=48, help="steps per run; the second half is measured")
    parser.add_argument("--rounds", type=int, default=2, help="runs per row, of which the fastest counts")
    parser.add_argument("--gpu-seconds", type=int, default=0, help="sample GPU utilization for this time instead")
    parser.add_argument("--plot", type=Path, help="image file of the utilization")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    if arguments.gpu_seconds and not torch.cuda.is_available():
        raise SystemExit("--gpu-seconds needs a GPU, and this machine has none")
    with tempfile.TemporaryDirectory() as place:
        features = arguments.features or small_features(Path(place))
        if arguments.gpu_seconds:
            size, seconds = arguments.model_size, arguments.gpu_seconds
            print(gpu_report(features, Path(place) / "gpu", size, seconds, arguments.plot))
            return
        store = FeatureStore(features)
        print(
            f"{arguments.model_size}, {len(store.split('train'))} clips, {arguments.steps} steps, "
            f"best of {arguments.rounds} runs\n",
            flush=True,
        )
        rows = speed_table(store, Path(place), arguments.model_size, arguments.steps, arguments.rounds)
        print(f"| {' | '.join(SPEED_COLUMNS)} |\n|{' --- |' * len(SPEED_COLUMNS)}", *rows, sep="\n", flush=True)
        print(f"\n| {' | '.join(NUMBER_COLUMNS)} |\n|{' --- |' * len(NUMBER_COLUMNS)}")
        for row in numbers(store, arguments.model_size):
            print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
