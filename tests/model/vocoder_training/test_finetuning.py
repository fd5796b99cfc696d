"""Fingerprints of vocoder trainings: a training resumes in a folder of the same fingerprint only."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from other_values import keys, with_another

from model.config.data import AudioConfig
from model.config.resolution import resolve
from model.config.schema import Config
from model.loop.reporting import NullLogger
from model.vocoder_training import finetuning
from model.vocoder_training.finetuning import base_vocoder, finetune

SETTINGS = resolve(
    None, None, {"seed": 77, "vocoder.type": "hifigan", "vocoder.variant": "xtiny", "vocoder.checkpoint": "g_1"}
).config
INFERENCE = {
    f"vocoder.{name}"
    for name in (
        "griffin_lim_iterations",
        "griffin_lim_momentum",
        "griffin_lim_start",
        "refinement_iterations",
        "precision",
        "chunk_frames",
        "device",
        "enable_compile",
    )
}
"""Settings that do not change the weights."""
STARTED = {
    f"vocoder.{name}"
    for name in ("finetune_learning_rate_ratio", "finetune_adversarial_start", "discriminator_freeze_steps")
}
FINETUNING = {f"vocoder.{name}" for name in ("finetune_steps", "checkpoint", "checkpoint_sha256", "start_from_base")}


class Planned(Exception):
    """Raised with the plan, instead of training."""


@pytest.fixture
def planned(monkeypatch, tmp_path, make_weights):
    """Returns the functions that compute the fingerprint of a base training and of a fine-tuning without running it."""

    def stop(plan, *_):
        raise Planned(plan)

    spoken = SimpleNamespace(config=SimpleNamespace(audio=AudioConfig()), model=SimpleNamespace(to=lambda device: None))
    monkeypatch.setattr(finetuning, "train_vocoder", stop)
    monkeypatch.setattr(finetuning.FeatureStore, "of", lambda store: store)
    monkeypatch.setattr(finetuning, "recorded_pairs", lambda *_: [])
    monkeypatch.setattr(finetuning, "read_voice", lambda folder: spoken)
    monkeypatch.setattr(finetuning, "predicted_pairs", lambda *_: ["a pair"])

    def store(features: str):
        return SimpleNamespace(content_hash=features, check=lambda audio: None)

    def base(start=None, config: Config = SETTINGS, features: str = "f", output: str = "out"):
        with pytest.raises(Planned) as caught:
            base_vocoder(config, store(features), Path("corpus"), tmp_path / output, NullLogger(), start)
        return caught.value.args[0].fingerprint

    def tuned(start, config: Config = SETTINGS, features: str = "f", voice: str = "w", output: str = "out"):
        folder = tmp_path / output / "voice"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "voice.json").write_text(json.dumps({"weights_sha256": voice}))
        with pytest.raises(Planned) as caught:
            finetune(config, folder, store(features), Path("corpus"), start, tmp_path / output, NullLogger())
        return caught.value.args[0].fingerprint

    return SimpleNamespace(base=base, started=base, tuned=tuned)


def changed_weights(weights, part: str):
    """Returns the weights with one tensor, of the generator or of a discriminator, changed a little."""
    state = weights.generator if part == "generator" else weights.discriminators[part]
    name = sorted(state)[0]
    changed = {**state, name: state[name] + torch.full_like(state[name], 1e-3)}
    if part == "generator":
        return replace(weights, generator=changed)
    return replace(weights, discriminators={**weights.discriminators, part: changed})


@pytest.fixture
def start(make_weights):
    return make_weights(discriminators=True)


def without_effect(fingerprint, *start) -> set[str]:
    """Returns the settings whose change does not change a fingerprint."""
    before = fingerprint(*start)
    settings = keys(SETTINGS, "seed", "vocoder")
    return {key for key in settings if fingerprint(*start, config=with_another(SETTINGS, key)) == before}


def test_the_fingerprint_of_a_base_training_covers_seed_and_training_settings(planned):
    assert without_effect(planned.base) == INFERENCE | STARTED | FINETUNING


def test_the_fingerprint_of_a_training_from_weights_covers_its_own_settings_too(planned, start):
    assert without_effect(planned.started, start) == INFERENCE | FINETUNING
    assert planned.base() != planned.started(start)


def test_the_fingerprint_of_a_fine_tuning_covers_seed_and_training_settings(planned, start):
    assert without_effect(planned.tuned, start) <= INFERENCE


@pytest.mark.parametrize("kind", ["base", "started", "tuned"])
def test_other_features_change_the_fingerprint(planned, start, kind):
    fingerprint, given = getattr(planned, kind), () if kind == "base" else (start,)
    assert fingerprint(*given, features="others") != fingerprint(*given)


def test_another_voice_changes_the_fingerprint(planned, start):
    assert planned.tuned(start, voice="another") != planned.tuned(start)


@pytest.mark.parametrize("kind", ["started", "tuned"])
def test_the_fingerprint_covers_the_start_weights_but_not_their_origin(planned, start, kind):
    fingerprint = getattr(planned, kind)
    before = fingerprint(start)
    assert fingerprint(replace(start, origin="fetched from elsewhere"), output="elsewhere") == before
    parts = ["generator", *start.discriminators]
    assert len({before, *(fingerprint(changed_weights(start, part)) for part in parts)}) == 1 + len(parts)
    assert fingerprint(replace(start, discriminators={})) != before
