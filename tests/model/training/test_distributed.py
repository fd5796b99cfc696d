"""Two processes that train together do what one process with the doubled batch does."""

import multiprocessing
import os
import socket

import pytest
import torch

from model.config import resolve
from model.training.checkpoint import list_checkpoints, load_checkpoint
from model.training.history import read_history
from model.training.trainer import TrainingError, train

STILL = {"model.dropout": 0.0, "model.predictor_dropout": 0.0, "model.aligner_dropout": 0.0}


def settings(small_settings, **training):
    plain = {"use_mixed_precision": False, "evaluation_interval": 3, "checkpoint_interval": 1, "max_steps": 3}
    plain |= {"keep_top_k": 1, "log_interval": 1, **training}
    return resolve(None, None, {**small_settings, **STILL, **{f"training.{k}": v for k, v in plain.items()}}).config


def together(config, features, folder, world=2) -> list[int]:
    """Exit codes of `world` processes that train as `torchrun` would start them."""

    def member(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        train(config, features, folder)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    members = [context.Process(target=member, args=(rank,)) for rank in range(world)]
    for process in members:
        process.start()
    for process in members:
        process.join(60)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in members]


@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, small_settings, generated_features, parts):
    train(settings(small_settings, batch_size=8, max_steps=1), generated_features, tmp_path / "one")
    shared = settings(small_settings, batch_size=4, max_steps=1, gradient_accumulation_steps=parts)
    assert together(shared, generated_features, tmp_path / "two") == [0, 0]
    one, two = (load_checkpoint(list_checkpoints(tmp_path / run / "checkpoints")[-1].path) for run in ("one", "two"))
    assert one.step == two.step == 1
    first, second = (  # the first moment after one step is the gradient, scaled
        torch.cat([slots["exp_avg"].flatten() for _, slots in sorted(run.optimizer["state"].items())])
        for run in (one, two)
    )
    assert float((first - second).abs().max() / first.abs().max()) < 1e-5
    losses = [read_history(tmp_path / run / "history.jsonl")[0]["train/loss"] for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_two_processes_keep_one_history_and_none_goes_on_alone(tmp_path, small_settings, generated_features):
    config = settings(small_settings, batch_size=4)
    assert together(config, generated_features, tmp_path) == [0, 0]
    assert [line["step"] for line in read_history(tmp_path / "history.jsonl") if "train/mel" in line] == [1, 2, 3]
    assert together(config, generated_features, tmp_path) == [0, 0]  # finished: found, not trained again
    with pytest.raises(TrainingError, match="trained by 2 processes, now 1"):
        train(config, generated_features, tmp_path)
