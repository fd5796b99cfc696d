"""Recovery from faults: a run recovers or stops with a reason, and loses no checkpoint."""

import json
import multiprocessing
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.files import sha256_of_file
from model.loop.checkpoints import (
    STATE_CHECKSUM,
    Checkpoint,
    CheckpointError,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
    newest_loadable,
    save_checkpoint,
)
from model.loop.reporting import History, HistoryError, read_history
from model.training import durations, step
from model.training import state as run_state
from model.training.trainer import TrainingError, train


def events(folder: Path, kind: str) -> list:
    return [line[kind] for line in read_history(folder / "history.jsonl") if kind in line]


def poison(monkeypatch, steps, factor=float("nan"), names=("mel",)):
    """Multiplies loss terms by a factor in the calls (1-based) that `steps` selects."""
    original, calls = step.loss_terms, 0

    def poisoned(*arguments):
        nonlocal calls
        calls += 1
        terms = original(*arguments)
        return {**terms, **{name: terms[name] * factor for name in names}} if steps(calls) else terms

    monkeypatch.setattr(step, "loss_terms", poisoned)


def finite(folder: Path) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in load_file(folder / "voice" / "model.safetensors").values())


def test_a_step_that_is_not_finite_is_skipped_and_its_clips_are_recorded(
    tmp_path, config, generated_features, monkeypatch
):
    poison(monkeypatch, lambda call: call == 3)
    train(config(max_steps=8), generated_features, tmp_path)
    skipped = events(tmp_path, "skipped")
    assert len(skipped) == 1
    assert skipped[0]
    assert all(isinstance(clip, str) for clip in skipped[0])
    assert finite(tmp_path)


def test_a_step_that_is_not_finite_does_not_prevent_cached_durations(tmp_path, config, generated_features, monkeypatch):
    poison(monkeypatch, lambda call: call == 3, names=("mel", "binarization"))
    monkeypatch.setattr(durations, "CONVERGED", 100.0)
    train(config(max_steps=15, durations="cached", enable_evaluation=False), generated_features, tmp_path)
    assert load_checkpoint(list_checkpoints(tmp_path / "checkpoints")[-1].path).extra["durations"]["cached"]


def empty_checkpoint(step: int, score: float | None = None) -> Checkpoint:
    return Checkpoint(
        step=step, model={}, ema={}, optimizer={"state": {}, "param_groups": []}, rng={}, extra={}, score=score
    )


def test_checkpoints_that_a_kill_left_half_written_are_removed(tmp_path):
    (tmp_path / ".step-00000003.1.1.partial").mkdir()
    save_checkpoint(tmp_path, empty_checkpoint(5), keep_top_k=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_a_nan_score_is_not_the_best(tmp_path):
    for number, score in enumerate((float("nan"), 0.5, 0.7, float("nan"), None)):
        save_checkpoint(tmp_path, empty_checkpoint(number, score), 2)
    assert best_checkpoint(tmp_path).name == "step-00000001"
    assert [saved.step for saved in list_checkpoints(tmp_path)] == [1, 2, 4]


def test_bad_steps_in_a_row_lead_to_rollbacks_and_finally_stop_the_run(
    tmp_path, config, generated_features, monkeypatch
):
    poison(monkeypatch, lambda _: True, float("inf"))
    with pytest.raises(TrainingError, match=r"3 steps in a row .* 2 rollbacks"):
        train(config(max_skipped_steps=3, max_rollbacks=2), generated_features, tmp_path)
    assert events(tmp_path, "rolled_back_to") == [0, 0]
    assert len(events(tmp_path, "skipped")) == 9
    assert "learning_rate" in events(tmp_path, "stopped")[0]


def test_after_a_rollback_the_learning_rate_is_lower_and_the_run_finishes(
    tmp_path, config, generated_features, monkeypatch
):
    poison(monkeypatch, lambda call: 12 <= call <= 14, 1e6)
    settings = config(max_steps=20, max_skipped_steps=3, rollback_rate_factor=0.25, learning_rate_schedule="constant")
    train(settings, generated_features, tmp_path)
    assert events(tmp_path, "rolled_back_to") == [10]
    assert len(events(tmp_path, "diverged")) == 3
    rates = [line["train/learning_rate"] for line in read_history(tmp_path / "history.jsonl") if "train/mel" in line]
    assert rates[-1] == pytest.approx(0.25 * settings.training.learning_rate)
    assert finite(tmp_path)


def test_a_nan_weight_is_restored_from_the_last_healthy_checkpoint(tmp_path, config, generated_features, monkeypatch):
    original, calls = step.loss_terms, 0

    def breaking(output, batch, *rest):
        nonlocal calls
        calls += 1
        if calls == 13:
            with torch.no_grad():
                broken.symbol_embedding.weight[5:] = float("nan")
        return original(output, batch, *rest)

    build = run_state.AcousticModel
    broken = None

    def remember(*arguments):
        nonlocal broken
        broken = build(*arguments)
        return broken

    monkeypatch.setattr(run_state, "AcousticModel", remember)
    monkeypatch.setattr(step, "loss_terms", breaking)
    train(config(max_steps=20, max_skipped_steps=2), generated_features, tmp_path)
    assert events(tmp_path, "rolled_back_to") == [10]
    assert finite(tmp_path)


def test_a_learning_rate_a_thousand_times_too_high_stops_with_the_fix(tmp_path, config, generated_features):
    settings = config(max_steps=200, learning_rate=2.0, max_skipped_steps=5, enable_evaluation=False)
    with pytest.raises(TrainingError, match=r"Lower training\.learning_rate"):
        train(settings, generated_features, tmp_path)
    assert len(events(tmp_path, "rolled_back_to")) == 3


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


KEPT = {"max_steps": 20, "keep_top_k": 3, "evaluation_interval": 5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config, generated_features) -> Path:
    """Folder of a finished run with several checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    train(config(**KEPT), generated_features, folder)
    return folder


@pytest.mark.parametrize("fault", ["bit", "torn", "gone", "state"])
def test_a_damaged_checkpoint_is_set_aside_and_the_previous_one_used(
    tmp_path, config, generated_features, caplog, finished, fault
):
    settings = config(**KEPT)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    whole = load_file(tmp_path / "voice" / "model.safetensors")
    last = list_checkpoints(tmp_path / "checkpoints")[-1].path
    weights = last / "model.safetensors"
    if fault == "bit":
        damage(weights)
    elif fault == "torn":
        weights.write_bytes(weights.read_bytes()[:100])
    elif fault == "gone":
        weights.unlink()
    else:
        (last / "state.json").write_text('{"step": 2')
    if fault != "state":
        with pytest.raises(CheckpointError, match=last.name):
            load_checkpoint(last)
    assert train(settings, generated_features, tmp_path).steps == 20
    assert f"set aside as damaged-{last.name}" in caplog.text
    assert (tmp_path / "checkpoints" / f"damaged-{last.name}").is_dir()
    again = load_file(tmp_path / "voice" / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_checkpoint_of_another_format_is_refused_with_both_numbers(tmp_path, config, generated_features):
    train(config(max_steps=5, enable_evaluation=False), generated_features, tmp_path)
    state = list_checkpoints(tmp_path / "checkpoints")[-1].path / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 1}))
    (state.parent / STATE_CHECKSUM).write_text(sha256_of_file(state))
    with pytest.raises(CheckpointError, match="checkpoint format 1, this version reads 3"):
        newest_loadable(tmp_path / "checkpoints")


def test_a_history_drops_repeated_steps_and_a_torn_line(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "train/mel": NaN}\n{"step": 3}\n{"step": 4, "tr')
    history = History(path, 2)
    history.write(3, {"value": 1.0})
    history.close()
    assert [record["step"] for record in read_history(path)] == [1, 2, 3]


@pytest.mark.parametrize("line", [b'{"step": 1', b"\xff\xfe"])
def test_a_damaged_line_of_a_history_is_named(tmp_path, line):
    (tmp_path / "history.jsonl").write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(HistoryError, match=r"history\.jsonl:2: .*damaged"):
        read_history(tmp_path / "history.jsonl")


def run_to_its_end(config, features: Path, folder: Path, kills: int, moments: random.Random) -> int:
    """Trains in processes of which at most `kills` are killed at random moments; returns how many were."""
    context = multiprocessing.get_context("fork")  # a fresh interpreter would spend its time on imports
    killed = 0
    while True:
        process = context.Process(target=train, args=(config, features, folder))
        process.start()
        process.join(moments.uniform(0.05, 2.0) if killed < kills else None)
        if not process.is_alive():
            return killed
        process.kill()
        process.join()
        killed += 1


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_changes_no_weight(tmp_path, config, generated_features, kills):
    settings = config(max_steps=30, checkpoint_interval=1, evaluation_interval=15, gradient_accumulation_steps=2)
    train(settings, generated_features, tmp_path / "whole")
    killed, moments, runs = 0, random.Random(kills), 0
    while killed < kills:
        folder, runs = tmp_path / f"killed-{runs}", runs + 1
        killed += run_to_its_end(settings, generated_features, folder, kills - killed, moments)
        for name in ("model", "ema", "optimizer"):
            path = f"checkpoints/step-00000030/{name}.safetensors"
            whole, other = load_file(tmp_path / "whole" / path), load_file(folder / path)
            assert all(torch.equal(whole[key], other[key]) for key in whole)
        steps = [line["step"] for line in read_history(folder / "history.jsonl") if "train/mel" in line]
        assert steps == [5, 10, 15, 20, 25, 30]
