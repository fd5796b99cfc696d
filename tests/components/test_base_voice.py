"""The voice that a training starts from is found by folder, version or alias, and pinned to its weights."""

import json

import pytest

from components.base_voice import BaseVoiceError, base_features, base_folder, find_base
from components.finetune_vocoder.base import base_vocoder_folder
from components.register.run import base_tags
from components.registry import CHAMPION, Registry, RegistryError
from model.config.training import TrainingConfig
from model.config.vocoder import VocoderConfig


@pytest.fixture
def voice(tmp_path):
    folder = tmp_path / "voice"
    folder.mkdir()
    (folder / "voice.json").write_text(
        json.dumps({"weights_sha256": "a" * 64, "languages": ["en"], "config": {"model_size": "small"}})
    )
    return folder


@pytest.fixture
def registered(state, voice, monkeypatch):
    """A model with two versions, the first of which is the champion; both lead to the same folder."""
    registry = Registry(state)
    registry.client.create_registered_model("reader")
    for _ in range(2):
        registry.client.create_model_version("reader", str(voice))
    registry.client.set_registered_model_alias("reader", CHAMPION, "1")
    monkeypatch.setattr(Registry, "voice_folder", lambda _, uri: voice)
    return registry


def test_none_is_no_voice(state):
    assert find_base("none", state) is None
    assert base_folder(TrainingConfig(), state) is None


def test_a_folder_is_found_under_its_absolute_path(state, voice, monkeypatch):
    monkeypatch.chdir(voice.parent)
    found = find_base("voice", state)
    assert (found.uri, found.folder, found.weights_sha256) == (str(voice), voice, "a" * 64)
    assert found.config == {"model_size": "small"}


def test_an_alias_is_pinned_to_the_version_that_it_points_at(state, registered):
    assert find_base(f"models:/reader@{CHAMPION}", state).uri == "models:/reader/1"
    registered.client.set_registered_model_alias("reader", CHAMPION, "2")
    assert find_base(f"models:/reader@{CHAMPION}", state).uri == "models:/reader/2"
    assert find_base("models:/reader/1", state).uri == "models:/reader/1"


def test_unknown_voices_are_errors_that_say_what_is_wanted(state, registered, tmp_path):
    with pytest.raises(BaseVoiceError, match=r"holds no voice\.json; give the `voice` folder"):
        find_base(str(tmp_path), state)
    with pytest.raises(RegistryError, match="no version"):
        find_base("models:/reader/9", state)


def test_a_description_without_weights_is_damaged(state, voice):
    (voice / "voice.json").write_text("{}")
    with pytest.raises(BaseVoiceError, match="weights_sha256"):
        find_base(str(voice), state)


def test_other_weights_under_the_same_name_are_refused(state, voice):
    same = TrainingConfig(start_from=str(voice), start_from_sha256="a" * 64)
    assert base_folder(same, state) == voice
    with pytest.raises(BaseVoiceError, match="start the run again"):
        base_folder(same.model_copy(update={"start_from_sha256": "b" * 64}), state)


def test_a_version_is_tagged_with_its_base_and_all_ancestors():
    chain = [{"uri": f"models:/{name}/1", "weights_sha256": name * 64} for name in "ab"]
    assert base_tags([]) == {}
    assert base_tags(chain) == {
        "base.uri": "models:/a/1",
        "base.weights_sha256": "a" * 64,
        "base.chain": "models:/a/1 <- models:/b/1",
    }


def test_the_features_of_a_base_are_found_by_their_hash(state, voice):
    for name, content in (("one", "1" * 16), ("two", "2" * 16)):
        state.features(name).mkdir(parents=True)
        (state.features(name) / "index.json").write_text(json.dumps({"content_hash": content}))
    with pytest.raises(BaseVoiceError, match=r"not recorded.*set training\.rehearsal to 0"):
        base_features(voice, state)
    description = json.loads((voice / "voice.json").read_text())
    for content, found in (("2" * 16, "two"), ("3" * 16, "")):
        (voice / "voice.json").write_text(json.dumps(description | {"trained_with": {"features_hash": content}}))
        if found:
            assert base_features(voice, state) == state.features(found)
        else:
            with pytest.raises(BaseVoiceError, match="lacks the features 3333"):
                base_features(voice, state)


@pytest.fixture
def with_base(tmp_path, voice):
    """Returns a function from type and variant of the base's vocoder to the folder of a voice trained from the base."""

    def build(kind="hifigan", variant="tiny"):
        (voice / "vocoder").mkdir()
        (voice / "vocoder" / "vocoder.json").write_text(json.dumps({"type": kind, "variant": variant}))
        made = tmp_path / "made"
        made.mkdir()
        lineage = [{"uri": str(voice), "weights_sha256": "a" * 64}]
        (made / "voice.json").write_text(json.dumps({"lineage": lineage}))
        return made

    return build


def vocoder(**changes):
    return VocoderConfig(**{"type": "hifigan", "variant": "tiny", **changes})


def test_the_vocoder_of_the_base_is_found(state, voice, with_base):
    assert base_vocoder_folder(with_base(), vocoder(), state) == voice / "vocoder"


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "v2"},
        {"type": "univnet"},
        {"type": "griffin_lim"},
        {"start_from_base": False},
        {"checkpoint": "somewhere"},
    ],
)
def test_another_vocoder_does_not_start_from_that_of_the_base(state, with_base, settings):
    assert base_vocoder_folder(with_base(), vocoder(**settings), state) is None


def test_a_voice_without_a_base_and_a_base_without_a_vocoder_start_from_scratch(state, voice, with_base):
    (voice / "voice.json").write_text(json.dumps({"weights_sha256": "a" * 64, "languages": ["en"], "config": {}}))
    assert base_vocoder_folder(voice, vocoder(), state) is None
    made = with_base()
    (voice / "vocoder" / "vocoder.json").unlink()
    (voice / "vocoder").rmdir()
    assert base_vocoder_folder(made, vocoder(), state) is None


@pytest.mark.parametrize(("left", "named"), [("", "is gone"), ("b", "no longer the base")])
def test_a_base_that_is_gone_or_was_retrained_is_named_with_the_fix(state, voice, with_base, left, named):
    made = with_base()
    (voice / "voice.json").unlink()
    if left:
        (voice / "voice.json").write_text(json.dumps({"weights_sha256": left * 64, "languages": ["en"], "config": {}}))
    with pytest.raises(BaseVoiceError, match=rf"{named}.*vocoder\.start_from_base to false"):
        base_vocoder_folder(made, vocoder(), state)
