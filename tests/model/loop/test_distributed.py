"""Training in two processes equals training in one process with twice the batch size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.loop.checkpoints import list_checkpoints, load_checkpoint
from model.loop.reporting import read_history
from model.training.trainer import TrainingError, train

pytestmark = pytest.mark.slow  # each process imports everything again

STILL = {"model.dropout": 0.0, "model.predictor_dropout": 0.0, "model.aligner_dropout": 0.0}


def settings(small_settings, changes=None, **training):
    plain = {"use_mixed_precision": False, "evaluation_interval": 3, "checkpoint_interval": 1, "max_steps": 3}
    plain |= {"keep_top_k": 1, "log_interval": 1, **training}
    plain |= {"gradient_clip_norm": 1e6, "gradient_clip_value": 1e6}  # clipping would hide a missing factor
    changes = {**small_settings, **STILL, **(changes or {}), **{f"training.{k}": v for k, v in plain.items()}}
    return TrainSettings.of(resolve(None, None, changes).config)


def together(config, features, folder, world_size=2, prelude="") -> list[str]:
    """Trains in `world_size` processes that `torchrun` starts; returns the lines of their stderr on failure.

    `prelude` is run before.
    """
    script = folder.with_name(f"{folder.name}.py")
    script.write_text(
        f"""from pathlib import Path
import torch
from model.config.training import TrainSettings
from model.training import durations
from model.training.trainer import train
torch.set_num_threads(1)
{prelude}
train(TrainSettings.from_json({config.to_json()!r}), Path({str(features)!r}), Path({str(folder)!r}))
"""
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(world_size),
        script,
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    return [] if done.returncode == 0 else done.stderr.splitlines()


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, small_settings, generated_features, micro_batches):
    train(settings(small_settings, batch_size=8, max_steps=1), generated_features, tmp_path / "one")
    shared = settings(small_settings, batch_size=4, max_steps=1, gradient_accumulation_steps=micro_batches)
    assert together(shared, generated_features, tmp_path / "two") == []
    one, two = (load_checkpoint(list_checkpoints(tmp_path / run / "checkpoints")[-1].path) for run in ("one", "two"))
    assert one.step == two.step == 1
    first, second = (  # the first moment after one step is the gradient, scaled
        torch.cat([slots["exp_avg"].flatten() for _, slots in sorted(run.optimizer["state"].items())])
        for run in (one, two)
    )
    assert float((first - second).abs().max() / first.abs().max()) < 1e-5
    losses = [read_history(tmp_path / run / "history.jsonl")[0]["train/loss"] for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_two_processes_keep_one_history_and_one_alone_cannot_resume(tmp_path, small_settings, generated_features):
    config = settings(small_settings, {"model.use_variational_encoder": True}, batch_size=4)
    assert together(config, generated_features, tmp_path / "run") == []
    assert [line["step"] for line in read_history(tmp_path / "run" / "history.jsonl") if "train/mel" in line] == [
        1,
        2,
        3,
    ]
    assert together(config, generated_features, tmp_path / "run") == []  # finished: found, not trained again
    with pytest.raises(TrainingError, match="trained by 2 processes, now 1"):
        train(config, generated_features, tmp_path / "run")


def test_two_processes_cache_durations_and_freeze_parts(tmp_path, small_settings, generated_features):
    """The aligner is frozen in the middle of the run; the gradients of the rest are exchanged before and after."""
    changes = {"loss.binarization_start": 0.1, "loss.binarization_end": 0.2, "training.freeze": ["decoder"]}
    config = settings(small_settings, {**changes, "training.durations": "cached"}, batch_size=4, max_steps=8)
    assert together(config, generated_features, tmp_path / "run", prelude="durations.CONVERGED = 100.0") == []
    checkpoint = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1].path)
    assert (checkpoint.step, checkpoint.extra["durations"]["cached"]) == (8, True)
