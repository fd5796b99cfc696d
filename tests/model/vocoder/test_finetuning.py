"""The fingerprints of a vocoder's trainings: folders of one fingerprint continue each other."""

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
SPEAKING = {
    f"vocoder.{name}"
    for name in (
        "griffin_lim_iterations",
        "griffin_lim_momentum",
        "precision",
        "chunk_frames",
        "device",
        "enable_compile",
    )
}
"""Settings that shape no weight."""
STARTED = {
    f"vocoder.{name}"
    for name in ("finetune_learning_rate_ratio", "finetune_adversarial_start", "discriminator_freeze_steps")
}
FINETUNING = {f"vocoder.{name}" for name in ("finetune_steps", "checkpoint", "checkpoint_sha256")}


class Planned(Exception):
    """Raised instead of training, with the plan."""


@pytest.fixture
def planned(monkeypatch, tmp_path, make_weights):
    """Function: (start weights or None, settings, features, voice) -> plan of a base training or a fine-tuning."""

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


def louder(weights, part: str):
    """The same weights, one of them (of the generator or a discriminator) a little larger."""
    state = weights.generator if part == "generator" else weights.discriminators[part]
    name = sorted(state)[0]
    changed = {**state, name: state[name] + torch.full_like(state[name], 1e-3)}
    if part == "generator":
        return replace(weights, generator=changed)
    return replace(weights, discriminators={**weights.discriminators, part: changed})


@pytest.fixture
def start(make_weights):
    return make_weights(discriminators=True)


def unnoticed(fingerprint, *start) -> set[str]:
    """Settings whose change leaves a fingerprint as it is."""
    before = fingerprint(*start)
    settings = keys(SETTINGS, "seed", "vocoder")
    return {key for key in settings if fingerprint(*start, config=with_another(SETTINGS, key)) == before}


def test_a_base_training_is_told_by_seed_and_settings_of_training(planned):
    assert unnoticed(planned.base) == SPEAKING | STARTED | FINETUNING


def test_a_training_that_starts_from_weights_is_told_by_their_settings_too(planned, start):
    assert unnoticed(planned.started, start) == SPEAKING | FINETUNING
    assert planned.base() != planned.started(start)


def test_a_fine_tuning_is_told_by_seed_and_settings_of_training(planned, start):
    assert unnoticed(planned.tuned, start) <= SPEAKING


@pytest.mark.parametrize("kind", ["base", "started", "tuned"])
def test_other_features_are_another_training(planned, start, kind):
    fingerprint, given = getattr(planned, kind), () if kind == "base" else (start,)
    assert fingerprint(*given, features="others") != fingerprint(*given)


def test_another_voice_is_another_fine_tuning(planned, start):
    assert planned.tuned(start, voice="another") != planned.tuned(start)


@pytest.mark.parametrize("kind", ["started", "tuned"])
def test_a_start_is_told_by_its_weights_wherever_they_come_from(planned, start, kind):
    fingerprint = getattr(planned, kind)
    before = fingerprint(start)
    assert fingerprint(replace(start, origin="fetched from elsewhere"), output="elsewhere") == before
    parts = ["generator", *start.discriminators]
    assert len({before, *(fingerprint(louder(start, part)) for part in parts)}) == 1 + len(parts)
    assert fingerprint(replace(start, discriminators={})) != before
