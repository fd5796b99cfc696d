"""Properties of training: it learns, it resumes as if never stopped, it survives bad steps, it exports a voice."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import model.training.trainer as trainer
from model.config import resolve
from model.synthesis import SynthesisError, Synthesizer
from model.threads import computes_in_bfloat16
from model.training.checkpoint import CheckpointError, best_checkpoint, list_checkpoints, load_checkpoint
from model.training.trainer import StopTraining, TrainingError, train
from model.voice import VoiceError, read_voice


@pytest.fixture
def config(small_settings):
    def build(**training):
        return resolve(None, None, {**small_settings, **{f"training.{k}": v for k, v in training.items()}}).config

    return build


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


class Recorder:
    def __init__(self):
        self.values, self.files = {}, []

    def metrics(self, step, values):
        self.values.setdefault(step, {}).update(values)

    def artifact(self, path, folder=""):
        assert path.is_file()
        self.files.append((folder, path.name))

    def close(self):
        pass


def same_tensors(a: Path, b: Path) -> bool:
    left, right = load_file(a), load_file(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_training_lowers_the_loss_and_reports_everything(tmp_path, config, generated_features):
    recorder = Recorder()
    result = train(config(max_steps=60), generated_features, tmp_path, recorder)
    assert result.steps == 60
    first, last = recorder.values[10], recorder.values[60]
    assert last["validation/mel"] < 0.9 * first["validation/mel"]
    assert last["validation/forward_sum"] < first["validation/forward_sum"]
    for name in ("mel_free", "length_ratio", "duration_error", "sharpness"):
        assert f"validation/{name}" in last
    assert {"train/mel", "train/gradient_norm", "train/learning_rate"} <= set(recorder.values[5])
    assert ("plots", "alignment-00000060.png") in recorder.files
    assert ("samples", "validation-00000060.wav") in recorder.files


@pytest.mark.parametrize("stop", [5, 10, 13])
def test_resuming_equals_never_having_stopped(tmp_path, config, generated_features, monkeypatch, stop):
    settings = config(max_steps=20)
    train(settings, generated_features, tmp_path / "whole")

    steps = 0
    original = trainer.clip_gradients

    def interrupting(*arguments):
        nonlocal steps
        steps += 1
        if steps == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(trainer, "clip_gradients", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(settings, generated_features, tmp_path / "parts")
    step, score, _ = list_checkpoints(tmp_path / "parts" / "checkpoints")[-1]
    assert step == stop
    assert (score is not None) == (stop % settings.training.evaluation_interval == 0)
    monkeypatch.setattr(trainer, "clip_gradients", original)
    torch.manual_seed(99)
    train(settings, generated_features, tmp_path / "parts")

    for name in ("model", "ema", "optimizer"):
        path = f"checkpoints/step-00000020/{name}.safetensors"
        assert same_tensors(tmp_path / "whole" / path, tmp_path / "parts" / path)
    whole, parts = (list_checkpoints(tmp_path / run / "checkpoints")[-1] for run in ("whole", "parts"))
    assert whole[:2] == parts[:2]


def test_a_finished_run_is_not_trained_again(tmp_path, config, generated_features, monkeypatch):
    first = train(config(), generated_features, tmp_path)
    monkeypatch.setattr(trainer, "loss_terms", lambda *_: pytest.fail("trained again"))
    assert train(config(), generated_features, tmp_path) == first


def test_a_folder_of_other_settings_is_refused(tmp_path, config, generated_features):
    train(config(max_steps=10), generated_features, tmp_path)
    with pytest.raises(TrainingError, match="other settings or data"):
        train(config(max_steps=10, learning_rate=1e-4), generated_features, tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path, config, generated_features):
    train(config(max_steps=10), generated_features, tmp_path)
    path = list_checkpoints(tmp_path / "checkpoints")[-1][2]
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=path.name):
        load_checkpoint(path)


@pytest.mark.parametrize("exported", ["best", "last"])
def test_best_last_and_top_k_are_kept_and_the_wanted_one_is_exported(tmp_path, config, generated_features, exported):
    settings = config(
        max_steps=20, evaluation_interval=4, checkpoint_interval=3, keep_top_k=2, exported_checkpoint=exported
    )
    train(settings, generated_features, tmp_path)
    scores = {line["step"]: line["validation/mel"] for line in history(tmp_path) if "validation/mel" in line}
    kept = {step for step, _, _ in list_checkpoints(tmp_path / "checkpoints")}
    assert kept == {*sorted(scores, key=scores.get)[:2], 20}
    best = load_checkpoint(best_checkpoint(tmp_path / "checkpoints"))
    assert best.step == min(scores, key=scores.get)
    assert read_voice(tmp_path / "voice").steps == (best.step if exported == "best" else 20)


def test_a_step_that_is_not_finite_is_skipped_and_its_clips_are_written_down(
    tmp_path, config, generated_features, monkeypatch
):
    original, calls = trainer.loss_terms, 0

    def poisoned(*arguments):
        nonlocal calls
        calls += 1
        terms = original(*arguments)
        return {**terms, "mel": terms["mel"] * float("nan")} if calls == 3 else terms

    monkeypatch.setattr(trainer, "loss_terms", poisoned)
    train(config(max_steps=8), generated_features, tmp_path)
    skipped = [line["skipped"] for line in history(tmp_path) if "skipped" in line]
    assert len(skipped) == 1
    assert skipped[0]
    assert all(isinstance(clip, str) for clip in skipped[0])
    weights = load_file(tmp_path / "voice" / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_too_many_bad_steps_in_a_row_stop_the_run(tmp_path, config, generated_features, monkeypatch):
    original = trainer.loss_terms
    monkeypatch.setattr(trainer, "loss_terms", lambda *a: {k: v * float("inf") for k, v in original(*a).items()})
    with pytest.raises(TrainingError, match="3 steps in a row"):
        train(config(max_skipped_steps=3), generated_features, tmp_path)


def test_the_caller_can_stop_a_run_at_a_validation(tmp_path, config, generated_features):
    def stop(step, metrics):
        assert metrics["validation/mel"] > 0
        raise StopTraining(f"enough at {step}")

    with pytest.raises(StopTraining, match="enough at 10"):
        train(config(), generated_features, tmp_path, on_validation=stop)
    assert list_checkpoints(tmp_path / "checkpoints")


TRAINING_CHANGES = {
    "batch_size": 3,
    "max_batch_frames": 400,
    "learning_rate": 1e-3,
    "aligner_learning_rate_scale": 1.0,
    "learning_rate_schedule": "constant",
    "final_learning_rate_ratio": 0.5,
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "gradient_clip_norm": 0.01,
    "gradient_clip_value": 0.001,
    "ema_decay": 0.0,
    "use_mixed_precision": False,
    "max_steps": 9,
}
SEEN_ELSEWHERE = {
    "evaluation_interval",
    "checkpoint_interval",
    "exported_checkpoint",
    "keep_top_k",
    "log_interval",
    "max_skipped_steps",
    "num_threads",
    "durations",
}


def test_every_training_setting_is_in_the_table(config):
    assert set(type(config().training).model_fields) == set(TRAINING_CHANGES) | SEEN_ELSEWHERE


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory, small_settings, generated_features):
    folder = tmp_path_factory.mktemp("plain")
    train(resolve(None, None, {**small_settings, "training.max_steps": 12}).config, generated_features, folder)
    return folder


@pytest.mark.parametrize("key", TRAINING_CHANGES)
def test_every_training_setting_changes_the_weights(tmp_path, config, generated_features, plain_run, key):
    if key == "use_mixed_precision" and not computes_in_bfloat16():
        pytest.skip("this processor does not compute in bfloat16, so the setting keeps float32")
    train(config(**{"max_steps": 12, key: TRAINING_CHANGES[key]}), generated_features, tmp_path)
    assert not same_tensors(tmp_path / "voice" / "model.safetensors", plain_run / "voice" / "model.safetensors")


@pytest.fixture(scope="module")
def voice(plain_run):
    return plain_run / "voice"


def test_a_voice_speaks_both_languages_and_says_what_it_cannot(voice):
    synthesizer = Synthesizer.load(voice)
    english, persian = (next(s for s in synthesizer.speakers if f"_{code}_" in s) for code in ("en", "fa"))
    for speaker, text, language in ((english, "Good morning.", "en"), (persian, "سلام", "fa"), (english, "سلام", "fa")):
        speech = synthesizer.synthesize(text, language, speaker)
        assert len(speech.samples) == 256 * speech.durations.sum()
        assert len(speech.phones) == len(speech.durations)
    with pytest.raises(SynthesisError, match="unknown speaker 'nobody'"):
        synthesizer.synthesize("Hello.", speaker="nobody")
    with pytest.raises(SynthesisError, match="unknown language 'de'"):
        synthesizer.synthesize("Hello.", language="de")
    with pytest.raises(SynthesisError, match="speed is 9"):
        synthesizer.synthesize("Hello.", speed=9)


def test_untrained_or_foreign_weights_refuse_to_speak(tmp_path, voice):
    import shutil

    for key, value, message in (
        ("steps", 0, "never trained"),
        ("symbols_hash", "other", "symbol table"),
        ("weights_sha256", "other", "not the weights"),
        ("format", 99, "voice format 99"),
    ):
        folder = tmp_path / key
        shutil.copytree(voice, folder)
        description = json.loads((folder / "voice.json").read_text())
        (folder / "voice.json").write_text(json.dumps({**description, key: value}))
        with pytest.raises(VoiceError, match=message):
            read_voice(folder)
    with pytest.raises(VoiceError, match=r"no voice\.json"):
        read_voice(tmp_path)
