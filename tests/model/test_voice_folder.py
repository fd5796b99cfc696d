"""The hash of a voice depends on its weights, its settings and its vocoder, not on its path."""

import json

import pytest

from model.config.vocoder import VocoderConfig
from model.voice_folder import voice_hash, with_vocoder


@pytest.fixture
def make_voice(tmp_path):
    """Returns a function from name, settings and hashes to the folder of a voice with placeholder weights."""

    def make(name="one", weights="w", generator="g", loudness=-23.0, **settings):
        trained, vocoder = tmp_path / name / "trained", tmp_path / name / "vocoder"
        for folder in (trained, vocoder):
            folder.mkdir(parents=True)
        description = {"weights_sha256": weights, "config": {"features": {"target_loudness": loudness}, "vocoder": {}}}
        (trained / "voice.json").write_text(json.dumps(description))
        (trained / "model.safetensors").write_bytes(b"weights")
        (vocoder / "generator.safetensors").write_bytes(b"generator")
        (vocoder / "vocoder.json").write_text(json.dumps({"generator_sha256": generator}))
        given = VocoderConfig(**{"type": "hifigan", "chunk_frames": 64, **settings})
        return with_vocoder(trained, tmp_path / name / "voice", given, vocoder)

    return make


def test_the_hash_does_not_depend_on_the_path(make_voice):
    assert voice_hash(make_voice()) == voice_hash(make_voice("elsewhere"))


@pytest.mark.parametrize(
    "change",
    [{"weights": "x"}, {"generator": "x"}, {"loudness": -20.0}, {"chunk_frames": 32}, {"precision": "bfloat16"}],
    ids=lambda change: next(iter(change)),
)
def test_other_weights_or_settings_change_the_hash(make_voice, change):
    assert voice_hash(make_voice()) != voice_hash(make_voice("changed", **change))
