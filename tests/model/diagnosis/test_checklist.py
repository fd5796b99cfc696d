"""The checklist: good settings pass, each known fault is found with its fix, dangerous ones are errors."""

import dataclasses
import math

import pytest

from model.config.resolution import presets, resolve
from model.diagnosis.checklist import (
    ChecklistError,
    blocking,
    check_normalization,
    check_speaker_contrast,
    checklist,
    refuse,
)
from model.features.statistics import SpeakerStatistics, Statistics


def findings(**overrides):
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    return {item.check: item for item in checklist(resolve(None, None, settings).config)}


def test_many_speakers_need_style_tokens_and_the_contrastive_loss():
    wanted = ("model.enable_gst", "loss.use_contrastive_speaker_loss")
    plain, helped = resolve(None, None, {}).config, resolve(None, None, dict.fromkeys(wanted, True)).config
    few, many = statistics(levels=range(4)), statistics(levels=range(10))
    found = check_speaker_contrast(plain, many)
    assert found.severity == "warning"
    assert all(key in found.fix for key in wanted)
    assert {check_speaker_contrast(plain, few).severity, check_speaker_contrast(helped, many).severity} == {"ok"}


@pytest.mark.parametrize("size", presets()[0])
@pytest.mark.parametrize("level", presets()[1])
def test_every_preset_passes_but_large_models_should_have_a_vocoder(size, level):
    found = findings(model_size=size, optimization_level=level)
    wanted = {"a vocoder is chosen"} if size in ("small", "normal", "big") else set()
    assert {name for name, item in found.items() if item.severity != "ok"} == wanted
    assert {
        item.severity for item in findings(model_size=size, optimization_level=level, vocoder__type="hifigan").values()
    } == {"ok"}


@pytest.mark.parametrize(
    ("check", "severity", "overrides"),
    [
        ("loss weights in range", "warning", {"loss__mel_loss_weight": 6.0}),
        ("loss weights in range", "error", {"loss__mel_loss_weight": 40.0}),
        ("loss weights in range", "warning", {"loss__mel_loss_weight": 40.0, "loss__allow_dangerous": True}),
        ("weight of the KL divergence in range", "warning", {"loss__kl_loss_weight": 3.0}),
        ("weight of the KL divergence in range", "error", {"loss__kl_loss_weight": 10.0}),
        ("batch fits the model size", "warning", {"training__batch_size": 64}),
        ("batch fits the model size", "warning", {"model_size": "big", "training__batch_size": 4}),
        ("learning rate fits the model size", "warning", {"training__learning_rate": 0.1}),
        ("learning rate fits the model size", "warning", {"training__learning_rate": 1e-6}),
        ("gradients are clipped", "warning", {"training__gradient_clip_norm": 1000.0}),
        ("the schedule reaches its peak", "warning", {"training__warmup_steps": 1000}),
        ("alignment and durations are trained", "error", {"loss__duration_loss_weight": 0.0}),
        ("shapes are static on GPUs and when compiling", "warning", {"training__enable_compile": True}),
        ("shapes are static on GPUs and when compiling", "warning", {"training__device": "cuda"}),
        ("shapes are static on GPUs and when compiling", "warning", {"training__model_gpu": 1}),
        ("a vocoder is chosen", "warning", {"model_size": "normal"}),
        ("style tokens are on for cloning", "warning", {"model_size": "small", "model__enable_gst": False}),
        ("settings that need a base voice have one", "error", {"training__rehearsal": 0.5}),
        (
            "settings that need a base voice have one",
            "error",
            {"training__base_interpolation": 0.2, "training__start_from": "auto", "corpus__format": "generated"},
        ),
        (
            "speakers can be compared",
            "warning",
            {"loss__use_contrastive_speaker_loss": True, "training__gradient_accumulation_steps": 2},
        ),
    ],
)
def test_each_fault_is_found_with_its_fix(check, severity, overrides):
    found = findings(**overrides)
    assert found[check].severity == severity
    assert found[check].fix
    assert [item.check for item in blocking(list(found.values()))] == ([check] if severity == "error" else [])


def test_the_settings_of_a_base_voice_pass_with_one():
    for base in ("models:/reader/1", "auto"):
        found = findings(training__rehearsal=0.5, training__start_from=base, corpus__format="ljspeech")
        assert found["settings that need a base voice have one"].severity == "ok"


def test_a_batch_of_two_speakers_can_be_compared():
    assert findings(loss__use_contrastive_speaker_loss=True)["speakers can be compared"].severity == "ok"


def test_static_shapes_pass_on_a_gpu():
    found = findings(training__device="cuda", training__enable_static_shapes=True)
    item = found["shapes are static on GPUs and when compiling"]
    assert (item.severity, item.fix) == ("ok", "")


def test_errors_are_refused_with_their_fix_and_warnings_are_not():
    refuse(findings(training__batch_size=64).values())
    with pytest.raises(ChecklistError, match=r"mel_loss_weight is 40.*set loss\.mel_loss_weight to 2\.5"):
        refuse(findings(loss__mel_loss_weight=40.0).values())


def statistics(levels=(-3.0, -3.5), mel_std=2.2) -> Statistics:
    speakers = {
        str(level): SpeakerStatistics(
            clips=10, seconds=30.0, voiced_share=0.5, energy_mean=level, energy_std=1.0, tokens_per_second=14.0
        )
        for level in levels
    }
    return Statistics(
        mel_mean=-5.0,
        mel_std=mel_std,
        energy_mean=-3.0,
        energy_std=1.0,
        log_f0=dict.fromkeys(speakers, (5.0, 0.2)),
        speakers=speakers,
    )


@pytest.mark.parametrize(
    ("about", "severity"),
    [
        (statistics(), "ok"),
        (statistics(mel_std=0.01), "error"),
        (statistics(mel_std=9.0), "error"),
        (dataclasses.replace(statistics(), mel_mean=math.nan), "error"),
        (statistics(levels=(-2.0, -4.0)), "warning"),
    ],
)
def test_features_without_the_statistics_of_speech_are_found(about, severity):
    found = check_normalization(about)
    assert (found.severity, bool(found.fix)) == (severity, severity != "ok")


def test_two_speakers_a_hundredfold_apart_are_forty_decibels_apart():
    assert "speakers are 40.0 dB apart" in check_normalization(statistics(levels=(0.0, -math.log(100)))).evidence
