"""What identifies a voice: its weights, its settings and its vocoder, wherever it lies."""

import json

import pytest

from model.config.vocoder import VocoderConfig
from model.voice_folder import voice_hash, with_vocoder


@pytest.fixture
def make_voice(tmp_path):
    """Function: name, settings and hashes -> folder of a voice with a vocoder, whose weights are only described."""

    def make(name="one", weights="w", generator="g", loudness=-23.0, **settings):
        trained, vocoder = tmp_path / name / "trained", tmp_path / name / "vocoder"
        for folder in (trained, vocoder):
            folder.mkdir(parents=True)
        described = {"weights_sha256": weights, "config": {"features": {"target_loudness": loudness}, "vocoder": {}}}
        (trained / "voice.json").write_text(json.dumps(described))
        (trained / "model.safetensors").write_bytes(b"weights")
        (vocoder / "generator.safetensors").write_bytes(b"generator")
        (vocoder / "vocoder.json").write_text(json.dumps({"generator_sha256": generator}))
        given = VocoderConfig(**{"type": "hifigan", "chunk_frames": 64, **settings})
        return with_vocoder(trained, tmp_path / name / "voice", given, vocoder)

    return make


def test_a_voice_is_the_same_wherever_it_lies(make_voice):
    assert voice_hash(make_voice()) == voice_hash(make_voice("elsewhere"))


@pytest.mark.parametrize(
    "change",
    [{"weights": "x"}, {"generator": "x"}, {"loudness": -20.0}, {"chunk_frames": 32}, {"precision": "bfloat16"}],
    ids=lambda change: next(iter(change)),
)
def test_another_part_or_setting_makes_another_voice(make_voice, change):
    assert voice_hash(make_voice()) != voice_hash(make_voice("changed", **change))
