"""Injects faults into training and prints how each run ends: `python -m benchmarks.faults`."""

import logging
import multiprocessing
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from benchmarks.generated_corpus import SETTINGS, small_features
from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.errors import FeatureError
from model.features.store import FeatureStore
from model.loop.checkpoints import list_checkpoints
from model.loop.reporting import read_history
from model.training import state as run_state
from model.training import step
from model.training.trainer import TrainingError, train

RUN = {
    "model_size": "xtiny",
    "training.max_steps": 40,
    "training.evaluation_interval": 20,
    "training.checkpoint_interval": 5,
    "training.log_interval": 5,
    "training.warmup_steps": 5,
    "training.max_skipped_steps": 4,
}
KILLS = 20
Fault = Callable[[Path, Path], str | None]
"""Runs a training with a fault, given features and run folder; returns a result, or None if `outcome` describes it."""


def settings(**training: Any) -> TrainSettings:
    overrides = {f"training.{key}": value for key, value in training.items()}
    return TrainSettings.of(resolve(None, None, {**SETTINGS, **RUN, **overrides}).config)


def nan_in_data(features: Path, folder: Path) -> None:
    """Trains on a corpus with one clip that is NaN."""
    original = step.loss_terms

    def spoiled(output: Any, batch: Any, losses: Any) -> Any:
        if bad in batch.clip_ids:
            batch.mel[batch.clip_ids.index(bad), 0] = float("nan")
        return original(output, batch, losses)

    store = FeatureStore(features)
    bad = store.clips[store.split("train")[0]].id
    with patch.object(step, "loss_terms", spoiled):
        train(settings(), features, folder)


def nan_in_weight(features: Path, folder: Path) -> None:
    """Trains with a weight that becomes NaN at step 13."""
    built = []

    def build(*arguments: Any) -> Any:
        built.append(model(*arguments))
        return built[-1]

    def spoil() -> None:
        with torch.no_grad():
            built[0].mel_head.weight[0] = float("nan")

    model = run_state.AcousticModel
    with patch.object(run_state, "AcousticModel", build), at_call(step, "loss_terms", 13, spoil):
        train(settings(), features, folder)


def nan_in_gradient(features: Path, folder: Path) -> None:
    """Trains with a gradient that is NaN at step 13."""
    original, calls = step.clip_gradients, 0

    def spoiled(module: torch.nn.Module, *bounds: float) -> Any:
        nonlocal calls
        calls += 1
        if calls == 13:
            next(p for p in module.parameters() if p.grad is not None).grad[0] = float("nan")
        return original(module, *bounds)

    with patch.object(step, "clip_gradients", spoiled):
        train(settings(), features, folder)


def rate_too_high(features: Path, folder: Path) -> None:
    """Trains with a learning rate that is a thousand times too high."""
    train(settings(learning_rate=2.0, max_steps=200), features, folder)


def corrupt_features(name: str) -> Fault:
    """Returns a fault: a flipped bit in the largest matching file of the feature store."""

    def fault(features: Path, folder: Path) -> None:
        copy = folder.with_name(f"{folder.name}-features")
        shutil.copytree(features, copy)
        flip(max(copy.rglob(name), key=lambda path: path.stat().st_size))
        train(settings(), copy, folder)

    return fault


def corrupt_checkpoint(features: Path, folder: Path) -> None:
    """Resumes a training from a checkpoint with a flipped bit."""
    train(settings(), features, folder)
    flip(list_checkpoints(folder / "checkpoints")[-1].path / "model.safetensors")
    train(settings(), features, folder)


def out_of_memory(features: Path, folder: Path) -> None:
    """Trains with memory for a single clip."""
    original = step.accumulate_gradients

    def scarce(context: Any, batch: Any, weights: Any, micro_batches: int) -> Any:
        if micro_batches < len(batch.clip_ids):
            raise torch.OutOfMemoryError("simulated")
        return original(context, batch, weights, micro_batches)

    with patch.object(step, "accumulate_gradients", scarce):
        train(settings(), features, folder)


def kills(features: Path, folder: Path) -> str:
    """Kills runs at random times with SIGKILL and resumes them until they end, for `KILLS` kills in all.

    The weights must equal those of a run without interruption.
    """
    config = settings(checkpoint_interval=1)
    whole = folder.with_name("whole")
    train(config, features, whole)
    moments, context = random.Random(0), multiprocessing.get_context("fork")
    killed = runs = 0
    while killed < KILLS:
        shutil.rmtree(folder, ignore_errors=True)
        ended, runs = False, runs + 1
        while not ended:
            process = context.Process(target=train, args=(config, features, folder))
            process.start()
            process.join(moments.uniform(0.05, 2.0) if killed < KILLS else None)
            ended = not process.is_alive()
            process.kill()
            process.join()
            killed += not ended
        compare(whole, folder)
    return f"{killed} killed, {runs} runs ended with the weights of a run without interruption"


def compare(whole: Path, killed: Path) -> None:
    """Checks that weights, average and optimizer state of two finished runs are equal bit for bit."""
    for name in ("model", "ema", "optimizer"):
        one, other = (
            load_file(list_checkpoints(run / "checkpoints")[-1].path / f"{name}.safetensors") for run in (whole, killed)
        )
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            raise AssertionError(f"{name} differs from that of the run without interruption")


FAULTS: dict[str, Fault] = {
    "NaN in the data": nan_in_data,
    "NaN in a weight": nan_in_weight,
    "NaN in a gradient": nan_in_gradient,
    "learning rate x 1000": rate_too_high,
    "a flipped bit in a feature shard": corrupt_features("shard-*"),
    "a flipped bit in the speaker vectors": corrupt_features("speaker_vectors.npy"),
    "a flipped bit in the feature index": corrupt_features("clips.npy"),
    "a flipped bit in the last checkpoint": corrupt_checkpoint,
    "out of memory": out_of_memory,
    f"kill -9, {KILLS} times": kills,
}


def at_call(module: Any, name: str, number: int, action: Callable[[], None]) -> Any:
    """Returns a patch that runs `action` before the `number`-th call of a function."""
    original, calls = getattr(module, name), 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            action()
        return original(*arguments)

    return patch.object(module, name, counted)


def flip(path: Path) -> None:
    """Flips one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def outcome(fault: Fault, features: Path, folder: Path) -> str:
    """Runs a training with a fault and describes how it ends, from its history and files."""
    try:
        ending = fault(features, folder) or "finished, weights finite"
        weights = load_file(folder / "voice" / "model.safetensors").values()
        if not all(bool(tensor.isfinite().all()) for tensor in weights):
            ending = "FAILED: the exported weights are not finite"
    except (TrainingError, FeatureError) as error:
        ending = f"stopped: {str(error).split(': ', 1)[-1][:90]}"
    records = read_history(folder / "history.jsonl") if (folder / "history.jsonl").is_file() else []
    counts = {
        kind: sum(kind in line for line in records)
        for kind in ("skipped", "diverged", "rolled_back_to", "micro_batches")
    }
    seen = [f"{count} x {kind.replace('_', ' ')}" for kind, count in counts.items() if count]
    seen += [path.name for path in (folder / "checkpoints").glob("damaged-*")]
    return "; ".join([*seen, ending])


def main() -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        features = small_features(root)
        print("| fault | what happened | seconds |\n| --- | --- | --- |")
        for number, (name, fault) in enumerate(FAULTS.items()):
            started = time.monotonic()
            result = outcome(fault, features, root / f"run-{number}")
            print(f"| {name} | {result} | {time.monotonic() - started:.1f} |", flush=True)


if __name__ == "__main__":
    main()
