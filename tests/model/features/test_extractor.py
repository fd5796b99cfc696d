"""What identifies the features of a clip: everything that shapes their values, and nothing else."""

from dataclasses import fields, replace

import pytest
from other_values import keys, with_another

from model.config.schema import Config
from model.corpus.manifest import Clip
from model.features import extractor
from model.features.extractor import clip_key, recipe

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


def test_every_setting_of_extraction_is_in_the_recipe_and_none_of_storage():
    before = recipe(SETTINGS, "code")
    unnoticed = [
        key for key in keys(SETTINGS, "audio", "features") if recipe(with_another(SETTINGS, key), "code") == before
    ]
    assert sorted(unnoticed) == [
        "features.cache_megabytes",
        "features.remote",
        "features.shard_megabytes",
        "features.speaker_encoder_weights",  # told by their checksum
    ]


@pytest.mark.parametrize("section", ["seed", "validation", "split", "loss", "training", "evaluation", "registry"])
def test_settings_of_other_steps_are_not_in_the_recipe(section):
    before = recipe(SETTINGS, "code")
    assert [key for key in keys(SETTINGS, section) if recipe(with_another(SETTINGS, key), "code") != before] == []


def test_code_and_symbol_table_are_in_the_recipe(monkeypatch):
    before = recipe(SETTINGS, "code")
    assert recipe(SETTINGS, "other code") != before
    monkeypatch.setattr(extractor, "symbols_hash", lambda: "another table")
    assert recipe(SETTINGS, "code") != before


def test_weights_without_a_checksum_are_told_by_their_content(tmp_path):
    recipes = []
    for folder, content in (("one", b"1"), ("two", b"1"), ("two", b"2")):
        path = tmp_path / folder / "encoder.pt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        config = Config.model_validate({"features": {"speaker_encoder_weights": str(path)}})
        recipes.append(recipe(config, "code"))
    assert recipes[0] == recipes[1]
    assert recipes[1] != recipes[2]
    assert len({*recipes, recipe(Config(), "code")}) == 3


@pytest.mark.parametrize("field", [field.name for field in fields(Clip)])
def test_a_clip_is_told_by_its_text_and_language_and_not_by_what_the_index_holds(field):
    changed = replace(CLIP, **{field: OTHER[field]})
    assert changed != CLIP
    same = clip_key("recipe", "digest", changed) == clip_key("recipe", "digest", CLIP)
    assert same is (field not in ("text", "language"))


def test_a_clip_is_told_by_its_recording_and_its_recipe():
    keys_of = {clip_key(made_by, digest, CLIP) for made_by in ("recipe", "another") for digest in ("digest", "other")}
    assert len(keys_of) == 4
