"""The clip key depends on all inputs of extraction, and on nothing else."""

from dataclasses import fields, replace

import pytest
from other_values import keys, with_another

from model.config.schema import Config
from model.corpus.manifest import Clip
from model.features import extractor
from model.features.extractor import clip_key, extraction_hash

SETTINGS = Config.model_validate(
    {
        "features": {
            "target_loudness": -23.0,
            "speaker_encoder_weights": "encoder.pt",
            "speaker_encoder_sha256": "0" * 64,
        }
    }
)
CLIP = Clip(
    id="a-01",
    audio="audio/a-01.flac",
    text="Rain again.",
    language="en",
    speaker="anna",
    seconds=1.5,
    sample_rate=22050,
    source_sample_rate=44100,
    split="train",
)
OTHER = {
    "id": "b-02",
    "audio": "audio/b-02.flac",
    "text": "Rain, again?",
    "language": "de",
    "speaker": "bob",
    "seconds": 2.5,
    "sample_rate": 16000,
    "source_sample_rate": 48000,
    "split": "test",
}


def test_the_extraction_hash_depends_on_every_setting_of_extraction_and_none_of_storage():
    before = extraction_hash(SETTINGS, "code")
    unused = [
        key
        for key in keys(SETTINGS, "audio", "features")
        if extraction_hash(with_another(SETTINGS, key), "code") == before
    ]
    assert sorted(unused) == [
        "features.cache_megabytes",
        "features.remote",
        "features.shard_megabytes",
        "features.speaker_encoder_weights",  # identified by their checksum
    ]


@pytest.mark.parametrize("section", ["seed", "validation", "split", "loss", "training", "evaluation", "registry"])
def test_the_extraction_hash_does_not_depend_on_settings_of_other_steps(section):
    before = extraction_hash(SETTINGS, "code")
    assert [
        key for key in keys(SETTINGS, section) if extraction_hash(with_another(SETTINGS, key), "code") != before
    ] == []


def test_the_extraction_hash_depends_on_code_and_symbol_table(monkeypatch):
    before = extraction_hash(SETTINGS, "code")
    assert extraction_hash(SETTINGS, "other code") != before
    monkeypatch.setattr(extractor, "symbols_hash", lambda: "another table")
    assert extraction_hash(SETTINGS, "code") != before


def test_weights_without_a_checksum_are_identified_by_their_content(tmp_path):
    hashes = []
    for folder, content in (("one", b"1"), ("two", b"1"), ("two", b"2")):
        path = tmp_path / folder / "encoder.pt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        config = Config.model_validate({"features": {"speaker_encoder_weights": str(path)}})
        hashes.append(extraction_hash(config, "code"))
    assert hashes[0] == hashes[1]
    assert hashes[1] != hashes[2]
    assert len({*hashes, extraction_hash(Config(), "code")}) == 3


@pytest.mark.parametrize("field", [field.name for field in fields(Clip)])
def test_the_clip_key_depends_on_text_and_language_and_not_on_what_the_index_holds(field):
    changed = replace(CLIP, **{field: OTHER[field]})
    assert changed != CLIP
    same = clip_key("extraction", "digest", changed) == clip_key("extraction", "digest", CLIP)
    assert same is (field not in ("text", "language"))


def test_the_clip_key_depends_on_recording_and_extraction():
    keys_of = {
        clip_key(extraction, digest, CLIP) for extraction in ("one", "another") for digest in ("digest", "other")
    }
    assert len(keys_of) == 4
