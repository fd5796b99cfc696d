"""Training: the loss falls, a resumed run equals an uninterrupted one, checkpoints are kept, a voice is exported."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.acoustic.global_variance import estimate_variance_factors
from model.audio.io import read_audio, write_audio
from model.config.resolution import presets, resolve
from model.config.training import TrainSettings
from model.corpus.manifest import read_manifest
from model.features.batching import evaluation_batches
from model.features.store import FeatureStore
from model.loop.checkpoints import best_checkpoint, list_checkpoints, load_checkpoint
from model.synthesis import CALIBRATION_SENTENCES, ProsodyControls, SynthesisError, Synthesizer
from model.training import losses, step
from model.training.learning_rate_finder import find_learning_rate
from model.training.profiling import PHASES
from model.training.trainer import StopTraining, TrainingError, train
from model.training.validation import validate
from model.voice import VoiceError, read_voice


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


def test_training_lowers_the_loss_and_reports_everything(tmp_path, config, generated_features, previews):
    recorder = Recorder()
    result = train(config(max_steps=60, num_threads=1), generated_features, tmp_path, recorder)
    assert result.steps == 60
    first, last = recorder.values[10], recorder.values[60]
    assert last["validation/mel"] < 0.9 * first["validation/mel"]
    assert last["validation/forward_sum"] < first["validation/forward_sum"]
    for name in ("mel_free", "length_ratio", "duration_error", "sharpness"):
        assert f"validation/{name}" in last
    assert {"train/mel", "train/gradient_norm", "train/learning_rate", "train/clipped_norm_share"} <= set(
        recorder.values[5]
    )
    assert [step for step, values in recorder.values.items() if "train/mel" in values] == list(range(5, 61, 5))
    assert torch.get_num_threads() == 1
    assert ("plots", "alignment-00000060.png") in recorder.files
    assert ("samples", "validation-00000060.wav") in recorder.files


EVERYTHING = {
    "gradient_accumulation_steps": 2,
    "num_workers": 2,
    "buffer_size": 3,
    "enable_adaptive_loss_weights": True,
    "adaptive_weight_update_interval": 2,
    "enable_static_shapes": True,
    "num_shape_buckets": 2,
    "enable_gradient_checkpointing": True,
    "enable_plateau_breaker": True,
    "plateau_patience": 4,
    "plateau_boost_steps": 4,
    "plateau_threshold": 0.9,
}


SPEAKER_CONSISTENCY = {
    "model.use_speaker_consistency_loss": True,
    "loss.speaker_consistency_start": 0.0,
}


@pytest.mark.parametrize(("stop", "options"), [(5, {}), (10, {}), (13, EVERYTHING), (7, SPEAKER_CONSISTENCY)])
def test_resuming_equals_never_having_stopped(tmp_path, config, generated_features, monkeypatch, stop, options):
    monkeypatch.setattr(losses, "AVERAGING_STEPS", 4)
    settings = config(max_steps=20, **options)
    train(settings, generated_features, tmp_path / "whole")

    steps = 0
    original = step.clip_gradients

    def interrupting(*arguments):
        nonlocal steps
        steps += 1
        if steps == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(step, "clip_gradients", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(settings, generated_features, tmp_path / "parts")
    saved = list_checkpoints(tmp_path / "parts" / "checkpoints")[-1]
    assert saved.step == stop
    assert (saved.score is not None) == (stop % settings.training.evaluation_interval == 0)
    monkeypatch.setattr(step, "clip_gradients", original)
    torch.manual_seed(99)
    train(settings, generated_features, tmp_path / "parts")

    for name in ("model", "ema", "optimizer"):
        path = f"checkpoints/step-00000020/{name}.safetensors"
        assert same_tensors(tmp_path / "whole" / path, tmp_path / "parts" / path)
    whole, parts = (
        load_checkpoint(list_checkpoints(tmp_path / run / "checkpoints")[-1].path) for run in ("whole", "parts")
    )
    assert (whole.step, whole.score, whole.extra) == (parts.step, parts.score, parts.extra)
    if options == EVERYTHING:
        assert any(factor != 1 for factor in whole.extra["adaptive"]["factors"].values())
        assert whole.extra["plateau"]["decided_at"] is not None


def test_validation_leaves_the_training_as_it_was(tmp_path, config, generated_features):
    """The raw weights and dropout are restored after validation, and no random number is drawn."""
    validated = config(max_steps=7, evaluation_interval=2, ema_decay=0.9)
    train(validated, generated_features, tmp_path / "validated")
    train(config(max_steps=7, enable_evaluation=False, ema_decay=0.9), generated_features, tmp_path / "alone")
    for name in ("model", "ema", "optimizer"):
        path = f"checkpoints/step-00000007/{name}.safetensors"
        assert same_tensors(tmp_path / "validated" / path, tmp_path / "alone" / path)
    last = tmp_path / "validated" / "checkpoints" / "step-00000007"
    assert not same_tensors(last / "model.safetensors", last / "ema.safetensors")


def test_validation_uses_the_averaged_weights(tmp_path, config, generated_features):
    settings = config(max_steps=6, evaluation_interval=6, ema_decay=0.99)
    result = train(settings, generated_features, tmp_path)
    store, voice = FeatureStore(generated_features), read_voice(tmp_path / "voice")  # the averaged weights
    assert validate(voice.model, store, settings)["validation/mel"] == pytest.approx(result.metrics["validation/mel"])
    voice.model.load_state_dict(load_checkpoint(best_checkpoint(tmp_path / "checkpoints")).model)
    raw = validate(voice.model, store, settings)["validation/mel"]
    assert abs(raw - result.metrics["validation/mel"]) > 1e-3


def test_a_resumed_run_keeps_the_micro_batches_that_fitted_into_memory(
    tmp_path, config, generated_features, monkeypatch
):
    original, tried = step.accumulate_gradients, []

    def scarce(context, batch, weights, micro_batches):
        tried.append(micro_batches)
        if len(tried) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        if micro_batches < 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(context, batch, weights, micro_batches)

    monkeypatch.setattr(step, "accumulate_gradients", scarce)
    settings = config(max_steps=9, batch_size=5, gradient_accumulation_steps=2, enable_evaluation=False)
    with pytest.raises(KeyboardInterrupt):
        train(settings, generated_features, tmp_path)
    assert tried == [2, *[4] * 6]
    tried.clear()
    monkeypatch.setattr(step, "accumulate_gradients", scarce)
    train(settings, generated_features, tmp_path)
    assert tried == [4, 4, 4]
    assert [line["micro_batches"] for line in history(tmp_path) if "micro_batches" in line] == [4]


def test_a_run_with_another_device_or_buffer_is_resumed(tmp_path, config, generated_features):
    train(config(max_steps=10), generated_features, tmp_path)
    assert train(config(max_steps=10, buffer_size=9, log_interval=3), generated_features, tmp_path).steps == 10


@pytest.mark.parametrize("level", presets()[1])
def test_the_loss_falls_at_every_optimization_level(tmp_path, small_settings, generated_features, level):
    settings = {**small_settings, "optimization_level": level, "training.enable_evaluation": False}
    train(TrainSettings.of(resolve(None, None, settings).config), generated_features, tmp_path)
    objectives = [line["train/objective"] for line in history(tmp_path) if "train/objective" in line]
    assert objectives[-1] < 0.9 * objectives[0]


def test_the_range_test_proposes_a_learning_rate_between_its_bounds_and_draws_it(tmp_path, config, generated_features):
    test = find_learning_rate(config(), generated_features, tmp_path, steps=60)
    assert test.learning_rates[0] < test.proposed < test.learning_rates[-1]
    assert min(test.losses) < test.losses[0]
    assert (tmp_path / "learning_rate.png").stat().st_size > 1000
    assert json.loads((tmp_path / "learning_rate.json").read_text())["proposed"] == test.proposed
    assert not (tmp_path / "checkpoints").exists()


def test_without_evaluation_the_last_weights_become_the_voice(tmp_path, config, generated_features, previews):
    result = train(config(max_steps=7, enable_evaluation=False), generated_features, tmp_path)
    assert (result.exported_step, result.metrics) == (7, {})
    assert not any(name.startswith("validation/") for line in history(tmp_path) for name in line)
    assert not (tmp_path / "samples").exists()


def test_a_profile_names_every_phase_and_adds_up(tmp_path, config, generated_features):
    recorder = Recorder()
    train(config(max_steps=9), generated_features, tmp_path, recorder, profile_steps=4)
    profile = {name: value for name, value in recorder.values[7].items() if name.startswith("profile/")}
    assert set(profile) == {f"profile/{phase}_ms" for phase in PHASES}
    assert profile["profile/forward_ms"] > 0 < profile["profile/backward_ms"]
    shares = [value for name, value in recorder.values[5].items() if name.startswith("time/") and "share" in name]
    assert 0.9 < sum(shares) <= 1
    assert "backward" in (tmp_path / "profile.txt").read_text()


def test_adaptive_weights_act_in_a_run(tmp_path, config, generated_features, monkeypatch):
    monkeypatch.setattr(losses, "AVERAGING_STEPS", 4)
    recorder = Recorder()
    settings = config(max_steps=20, enable_adaptive_loss_weights=True, adaptive_weight_update_interval=2)
    train(settings, generated_features, tmp_path, recorder)
    weights = {
        step: {n: v for n, v in values.items() if n.startswith("weight/")} for step, values in recorder.values.items()
    }
    assert weights[5]["weight/mel"] == settings.loss.mel_loss_weight
    assert weights[20] != {**weights[5], "weight/binarization": weights[20]["weight/binarization"]}


def test_float16_trains_with_a_scaler_that_is_in_the_checkpoint(tmp_path, config, generated_features):
    settings = config(max_steps=12, use_mixed_precision=True, mixed_precision="float16")
    train(settings, generated_features, tmp_path)
    checkpoint = load_checkpoint(list_checkpoints(tmp_path / "checkpoints")[-1].path)
    assert checkpoint.extra["scaler"]["scale"] > 1
    assert all(bool(tensor.isfinite().all()) for tensor in checkpoint.model.values())
    mel = [line["train/mel"] for line in history(tmp_path) if "train/mel" in line]
    assert mel[-1] < mel[0]


@pytest.mark.slow
def test_compiling_changes_no_number_and_stops_after_the_shapes(tmp_path, config, generated_features):
    shapes = {"enable_static_shapes": True, "num_shape_buckets": 2, "max_steps": 30, "use_mixed_precision": False}
    recorder = Recorder()
    train(config(**shapes), generated_features, tmp_path / "eager")
    train(config(**shapes, enable_compile=True), generated_features, tmp_path / "compiled", recorder)
    graphs = [values["train/compiled_graphs"] for _, values in sorted(recorder.values.items()) if "train/mel" in values]
    distinct = max(values.get("train/distinct_shapes", 0) for values in recorder.values.values())
    assert distinct <= 2
    assert graphs[0] > 0
    assert graphs[-1] == graphs[len(graphs) // 2] <= 2 * distinct
    eager, compiled = (history(tmp_path / run)[0]["train/mel"] for run in ("eager", "compiled"))
    assert compiled == pytest.approx(eager, rel=1e-3)


def test_a_finished_run_is_not_trained_again(tmp_path, config, generated_features, monkeypatch):
    first = train(config(), generated_features, tmp_path)
    monkeypatch.setattr(step, "loss_terms", lambda *_: pytest.fail("trained again"))
    assert train(config(), generated_features, tmp_path) == first


def test_a_folder_of_other_settings_is_refused(tmp_path, config, generated_features):
    train(config(max_steps=10, batch_size=4), generated_features, tmp_path)
    with pytest.raises(TrainingError, match=r"other settings or data: training\.batch_size is 2 instead of 4; change"):
        train(config(max_steps=10, batch_size=2), generated_features, tmp_path)


@pytest.mark.parametrize("exported", ["best", "last"])
def test_best_last_and_top_k_are_kept_and_the_wanted_one_is_exported(tmp_path, config, generated_features, exported):
    settings = config(
        max_steps=20, evaluation_interval=4, checkpoint_interval=3, keep_top_k=3, exported_checkpoint=exported
    )
    train(settings, generated_features, tmp_path)
    scores = {line["step"]: line["validation/mel"] for line in history(tmp_path) if "validation/mel" in line}
    kept = {saved.step for saved in list_checkpoints(tmp_path / "checkpoints")}
    assert kept == {*sorted(scores, key=scores.get)[:3], 20}
    best = load_checkpoint(best_checkpoint(tmp_path / "checkpoints"))
    assert best.step == min(scores, key=scores.get)
    assert read_voice(tmp_path / "voice").steps == (best.step if exported == "best" else 20)


def test_a_voice_restores_the_variance_that_its_mels_lack(tmp_path, config, generated_features):
    train(config(max_steps=10, variance_restoration=1.0), generated_features, tmp_path / "restored")
    train(config(max_steps=10, variance_restoration=0.0), generated_features, tmp_path / "plain")
    restored, plain = read_voice(tmp_path / "restored" / "voice"), read_voice(tmp_path / "plain" / "voice")
    clips = evaluation_batches(FeatureStore(generated_features), "validation", 4)
    assert restored.variance_factors == estimate_variance_factors(plain.model, clips).tolist()
    assert min(restored.variance_factors) > 1  # ten steps speak almost nothing but the mean
    assert set(plain.variance_factors) == {1.0}


def test_a_voice_has_the_speakers_that_it_was_trained_on(tmp_path, config, small_features):
    train(config(max_steps=2, enable_evaluation=False), small_features, tmp_path)
    voice = read_voice(tmp_path / "voice")
    assert set(FeatureStore(small_features).speakers) - set(voice.speakers) == {"unheard"}
    assert voice.speaker_languages.keys() == voice.speakers.keys()


def test_the_caller_can_stop_a_run_at_a_validation(tmp_path, config, generated_features):
    def stop(step, metrics):
        assert metrics["validation/mel"] > 0
        raise StopTraining(f"enough at {step}")

    with pytest.raises(StopTraining, match="enough at 10"):
        train(config(), generated_features, tmp_path, on_validation=stop)
    assert list_checkpoints(tmp_path / "checkpoints")


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory, small_settings, generated_features):
    folder = tmp_path_factory.mktemp("plain")
    settings = {**small_settings, "training.max_steps": 12, "training.enable_evaluation": False}
    train(TrainSettings.of(resolve(None, None, settings).config), generated_features, folder)
    return folder


def test_a_finished_run_is_exported_with_other_settings_without_training(
    tmp_path, small_settings, generated_features, plain_run
):
    run = shutil.copytree(plain_run, tmp_path / "run")
    changes = {"training.max_steps": 12, "training.enable_evaluation": False, "training.variance_restoration": 0.0}
    history, before = (run / "history.jsonl").read_text(), read_voice(run / "voice")
    train(TrainSettings.of(resolve(None, None, {**small_settings, **changes}).config), generated_features, run)
    after = read_voice(run / "voice")
    assert (run / "history.jsonl").read_text() == history
    assert max(before.variance_factors) > 1
    assert set(after.variance_factors) == {1.0}


@pytest.fixture(scope="module")
def voice(plain_run):
    return plain_run / "voice"


def test_a_voice_speaks_both_languages_and_refuses_unknown_ones(voice):
    synthesizer = Synthesizer(voice)
    english, persian = (next(s for s in synthesizer.speakers if s.startswith(f"{code}_")) for code in ("en", "fa"))
    for speaker, text, language in ((english, "Good morning.", "en"), (persian, "سلام", "fa"), (english, "سلام", "fa")):
        speech = synthesizer.synthesize(text, language, speaker)
        assert len(speech.samples) == 256 * speech.durations.sum()
        assert len(speech.phones) == len(speech.durations)
    with pytest.raises(SynthesisError, match="unknown speaker 'nobody'"):
        synthesizer.synthesize("Hello.", speaker="nobody")
    with pytest.raises(SynthesisError, match="unknown language 'de'"):
        synthesizer.synthesize("Hello.", language="de")
    with pytest.raises(SynthesisError, match="speed is 9"):
        synthesizer.synthesize("Hello.", prosody=ProsodyControls(speed=9))


def test_a_voice_that_speaks_another_language_keeps_its_own_and_others_are_left_alone(
    voice, generated_corpus, monkeypatch
):
    synthesizer, calls = Synthesizer(voice), []
    english = next(name for name, own in synthesizer.voice.speaker_languages.items() if own == "en")
    spoken = synthesizer.voice.model.synthesize

    def listening(ids, lengths, vector, language, style, own_language, shift):
        calls.append((int(language), own_language if own_language is None else int(own_language)))
        return spoken(ids, lengths, vector, language, style, own_language, shift)

    monkeypatch.setattr(synthesizer.voice.model, "synthesize", listening)
    synthesizer.synthesize("Good morning.", "en", english)
    synthesizer.synthesize("سلام", "fa", english)
    recording = generated_corpus / next(clip.audio for clip in read_manifest(generated_corpus) if clip.language == "en")
    for language in ("", "en", "fa"):
        synthesizer.synthesize("سلام", "fa", reference=recording, reference_language=language)
    synthesizer.synthesize("Good morning.", reference=recording, reference_language="en")
    en, fa = (synthesizer.languages.index(code) for code in ("en", "fa"))
    cloned = [(fa, None), (fa, en), (fa, None), (en, None)]  # the spectrum of each clone is measured first
    clones = [pair for pair in cloned for _ in range(CALIBRATION_SENTENCES + 1)]
    assert calls == [(en, None), (fa, en), *clones]
    with pytest.raises(SynthesisError, match="unknown language 'de'"):
        synthesizer.synthesize("Hello.", "en", reference=recording, reference_language="de")
    with pytest.raises(SynthesisError, match="give a reference"):
        synthesizer.synthesize("Hello.", reference_language="en")


def test_a_pretrained_encoder_embeds_a_reference_without_the_surrounding_silence(voice, generated_corpus, tmp_path):
    synthesizer = Synthesizer(voice)
    path = generated_corpus / read_manifest(generated_corpus)[0].audio
    samples = read_audio(path, synthesizer.sample_rate)
    quiet = np.zeros(4 * synthesizer.sample_rate, np.float32)
    padded = write_audio(tmp_path / "long.wav", np.concatenate([quiet, samples, quiet]), synthesizer.sample_rate)
    plain, trimmed = (synthesizer._embed_speaker(synthesizer._read_reference(file))[0] for file in (path, padded))
    assert float(plain @ trimmed) > 0.99


def test_untrained_or_foreign_weights_are_refused(tmp_path, voice):
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
