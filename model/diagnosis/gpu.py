"""Diagnosis of training speed: profiles a few steps, which are discarded, and reports where their time went."""

from __future__ import annotations

import tempfile
from pathlib import Path

from model.config.training import TrainSettings
from model.diagnosis.checklist import Finding
from model.loop.reporting import read_history
from model.training.profiling import WARM_UP
from model.training.trainer import train

SLOW_DATA = 0.02
"""Share of a step above which waiting for data is a finding."""


def diagnose_gpu(config: TrainSettings, features: Path, profile_steps: int) -> tuple[dict[str, float], list[Finding]]:
    """Trains and profiles a few steps.

    Args:
        config: Settings of the run to diagnose.
        features: A feature store.
        profile_steps: Number of steps to profile.

    Returns:
        `profile/<phase>_ms` of a step, and all findings, passed ones included, in a fixed order.

    Raises:
        See `model.training.trainer.train`.
    """
    steps = WARM_UP + profile_steps
    changes = {"max_steps": steps, "enable_evaluation": False, "log_interval": steps}
    config = config.model_copy(update={"training": config.training.model_copy(update=changes)})
    with tempfile.TemporaryDirectory() as scratch:
        train(config, features, Path(scratch) / "run", profile_steps=profile_steps)
        records = read_history(Path(scratch) / "run" / "history.jsonl")
    profile = {name: value for line in records for name, value in line.items() if name.startswith("profile/")}
    shapes = int(next(line["train/distinct_shapes"] for line in records if "train/distinct_shapes" in line))
    return profile, [_data_wait(profile), _shapes(shapes, steps, config.training.num_shape_buckets)]


def _data_wait(profile: dict[str, float]) -> Finding:
    check, share = "training does not wait for data", profile["profile/data_ms"] / sum(profile.values())
    evidence = f"{100 * share:.2f} % of a step waits for data"
    if share < SLOW_DATA:
        return Finding.ok(check, evidence)
    return Finding.warning(check, evidence, "raise training.buffer_size and training.num_workers")


def _shapes(shapes: int, steps: int, buckets: int) -> Finding:
    evidence = f"{shapes} distinct shapes in {steps} steps"
    if shapes <= buckets:
        return Finding.ok("shapes are few", evidence)
    fix = f"on a GPU or when compiling, set training.enable_static_shapes: {buckets} shapes at most"
    return Finding.warning("shapes are few", evidence, fix)
