"""Base voices: the choice for a project, making one once, and the settings that follow from it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from components.base_voice import LANGUAGES, BaseVoice, BaseVoiceError, base_languages, base_name
from model.config.resolution import adaptation_preset
from model.corpus.readers import generated
from pipelines import base_voices, project
from pipelines.base_voices import base_settings, ensure_base, start_from_base
from pipelines.cli.base import base as base_group


def voice(tmp_path, uri="models:/base/3"):
    return BaseVoice(
        uri=uri,
        folder=tmp_path,
        weights_sha256="c" * 64,
        languages=("en", "fa"),
        config=project.resolve(None, None, {"model_size": "xtiny", "model.ffn_dim": 96}).config.model_dump(),
    )


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """A project with ten seconds of English training speech."""
    (tmp_path / "params.yaml").write_text("corpus: {format: ljspeech, name: reader}\n")
    corpus = tmp_path / project.CORPUS
    corpus.mkdir(parents=True)
    clip = {"audio": "a.flac", "text": "a", "language": "en", "speaker": "s", "sample_rate": 1, "source_sample_rate": 1}
    clips = [
        {**clip, "id": str(n), "seconds": 5.0, "split": split} for n, split in enumerate(("train", "train", "test"))
    ]
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(item) + "\n" for item in clips))

    def build(**training):
        sources = (tmp_path / "params.yaml", None, {f"training.{key}": value for key, value in training.items()})
        state = SimpleNamespace(lock=lambda name: (tmp_path / "lock").open("w"))
        return project.Project(tmp_path, state, project.resolve(*sources), sources=sources)

    return build


@pytest.mark.parametrize(
    ("spoken", "chosen"),
    [
        ({"en"}, ("en",)),
        ({"fa", "en"}, ("en", "fa")),
        ({"de"}, ("de",)),
        ({"fr", "en"}, ("en", "fr")),
        ({"nl", "it", "es"}, ("es", "it")),
        ({"nl"}, ("en",)),
    ],
)
def test_a_base_speaks_those_languages_of_a_corpus_that_can_be_generated(spoken, chosen):
    assert base_languages(spoken) == chosen


def test_names_of_bases_list_the_languages_in_alphabetical_order():
    names = [base_name(base_languages(spoken), "tiny") for spoken in ({"en"}, {"fa", "en"}, {"it", "fr", "en", "de"})]
    assert names == ["myxtts-base-en-tiny", "myxtts-base-en-fa-tiny", "myxtts-base-de-en-fr-it-tiny"]


def test_a_base_is_generated_in_its_languages_alone_and_starts_from_scratch():
    settings = base_settings(("fa",), "small")
    assert settings["corpus.generated_voices"] == {"fa": 2}
    assert settings["registry.name"].format(size=settings["model_size"]) == base_name(("fa",), "small")
    assert settings["training.start_from"] == "none"
    assert (
        settings["training.base_interpolation"] == settings["training.rehearsal"] == 0
    )  # params.yaml may ask for more
    assert settings["training.durations"] == "cached"
    assert project.resolve(None, None, settings).config.evaluation.max_seconds == 30


@pytest.mark.parametrize("languages", [("en",), ("fa",), ("en", "fa"), ("de",), LANGUAGES])
def test_the_settings_of_a_base_are_valid_and_speech_can_be_generated_with_them(languages):
    corpus = project.resolve(None, None, base_settings(languages, "small")).config.corpus
    spoken = {utterance.speaker for utterance in generated.read(corpus.model_copy(update={"path": ""})).utterances}
    counts = {language: 2 if language == "fa" else 4 for language in languages}
    assert corpus.sentences_per_voice == (105 if "fa" in languages else 150)  # as many as the shortest list has
    assert spoken == {f"{name}_{number + 1}" for name, count in counts.items() for number in range(count)}


def test_a_base_is_made_once(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(base_voices, "find_made_base", lambda *_: voice(tmp_path) if made else None)
    state = SimpleNamespace(lock=lambda name: (tmp_path / "lock").open("w"))
    for _ in range(2):
        assert ensure_base(state, ("en",), "tiny", made.append).uri == "models:/base/3"
    assert made == [base_settings(("en",), "tiny")]


def test_a_run_that_leaves_no_base_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(base_voices, "find_made_base", lambda *_: None)
    state = SimpleNamespace(lock=lambda name: (tmp_path / "lock").open("w"))
    with pytest.raises(BaseVoiceError, match="--start-from none"):
        ensure_base(state, ("en",), "tiny", lambda settings: None)


def test_settings_follow_from_the_base_and_the_amount_of_speech(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(project, "find_base", lambda *_: voice(tmp_path))
    plain = recordings(start_from="models:/base@champion")
    started = plain.with_base().config
    assert (started.training.start_from, started.training.start_from_sha256) == ("models:/base/3", "c" * 64)
    assert started.model_size == "xtiny"
    assert started.model.ffn_dim == 96
    of_size = project.resolve(None, None, {"model_size": "xtiny"}).config.training
    assert started.training.max_steps < of_size.max_steps
    assert started.training.learning_rate < of_size.learning_rate
    own = recordings(start_from="models:/base@champion", max_steps=7).with_base().config
    assert own.training.max_steps == 7


def test_a_voice_that_does_not_exist_is_refused_before_the_data_is_made(recordings, tmp_path):
    with pytest.raises(BaseVoiceError, match=r"no-voice holds no voice\.json"):
        recordings(start_from=str(tmp_path / "no-voice")).require_sound()


def test_from_scratch_nothing_changes(recordings):
    plain = recordings(start_from="none")
    assert plain.with_base() is plain
    assert not plain.needs_base


def test_recordings_start_from_a_base_by_the_settings_of_the_project():
    shipped = project.resolve(Path(project.__file__).parents[1] / "params.yaml")
    assert shipped.config.training.start_from == "auto"


def test_a_named_base_and_auto_need_a_base(recordings):
    assert recordings(start_from="auto").needs_base
    assert recordings(start_from="models:/base/3").needs_base
    assert not recordings().needs_base


@pytest.mark.parametrize("made", [True, False])
def test_auto_takes_the_base_of_the_languages_and_else_starts_from_scratch(
    recordings, tmp_path, monkeypatch, made, caplog
):
    asked = []

    def find(state, languages, size):
        asked.append((languages, size))
        return voice(tmp_path) if made else None

    monkeypatch.setattr(project, "find_made_base", find)
    started = recordings(start_from="auto").with_base().config.training
    assert asked == [(("en",), "tiny")]
    assert started.start_from == ("models:/base/3" if made else "none")
    assert ("myxtts base make --languages en --model-size tiny" in caplog.text) is not made


def test_auto_makes_the_base_where_a_run_can(recordings, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(base_voices, "find_made_base", lambda *_: voice(tmp_path) if made else None)
    plain = recordings(start_from="auto")
    launch = plain.config.launch.model_copy(update={"launcher": "torchrun", "processes": 3})
    config = plain.config.model_copy(update={"launch": launch})
    started = replace(plain, resolved=replace(plain.resolved, config=config)).with_base(made.append)
    (settings,) = made
    assert base_settings(("en",), "tiny").items() <= settings.items()
    assert settings["launch.processes"] == 3  # its training is launched like that of the run
    assert started.config.training.start_from == "models:/base/3"


def test_generated_speech_starts_from_scratch(recordings, tmp_path):
    plain = recordings(start_from="auto")
    corpus = plain.config.corpus.model_copy(update={"format": "generated"})
    generated = replace(
        plain, resolved=replace(plain.resolved, config=plain.config.model_copy(update={"corpus": corpus}))
    )
    assert not generated.needs_base
    assert generated.with_base().config.training.start_from == "none"


def features(seconds):
    """Returns a feature store of one training clip of Persian speech."""
    clip = SimpleNamespace(seconds=seconds)
    return SimpleNamespace(clips=[clip], languages=["fa"], split=lambda name: [0] if name == "train" else [])


@pytest.mark.parametrize(("given", "steps"), [({}, None), ({"training.max_steps": 7}, 7)])
def test_a_training_outside_of_a_pipeline_has_the_same_base_and_settings(tmp_path, monkeypatch, given, steps):
    asked, auto = [], {"training.start_from": "auto"}
    monkeypatch.setattr(base_voices, "find_made_base", lambda *args: asked.append(args[1:]) or voice(tmp_path))
    settings = project.resolve(None, None, {"corpus.format": "ljspeech", "model_size": "xtiny", **auto, **given})
    started, base = start_from_base(settings, features(10.0), None)
    assert asked == [(("fa",), "xtiny")]
    assert base.uri == started.config.training.start_from == "models:/base/3"
    assert started.config.training.start_from_sha256 == "c" * 64
    assert started.config.model.ffn_dim == 96
    assert started.config.corpus.format == "ljspeech"
    usual = project.resolve(None, None, {"model_size": "xtiny"}).config.training.max_steps
    assert started.config.training.max_steps == (steps or round(adaptation_preset(10.0)["steps"] * usual))
    assert started.config.training.learning_rate < settings.config.training.learning_rate
    assert started.origins["corpus.format"] == "command line"


def test_a_base_that_lacks_a_language_of_the_corpus_is_not_interpolated_with(tmp_path):
    known, unknown = (voice(tmp_path).layers(languages, 10.0) for languages in (["fa", "en"], ["fa", "nl"]))
    share = adaptation_preset(10.0)["base_interpolation"]
    resolved = [project.resolve(derived=layers).config.training for layers in (known, unknown)]
    assert [training.base_interpolation for training in resolved] == [share, 0.0]
    assert share > 0
    assert resolved[0].max_steps == resolved[1].max_steps


@pytest.mark.parametrize(
    "corpus", [{"training.start_from": "auto"}, {"training.start_from": "none", "corpus.format": "table"}]
)
def test_a_training_outside_of_a_pipeline_starts_from_scratch_as_a_run_does(monkeypatch, corpus):
    monkeypatch.setattr(base_voices, "find_made_base", lambda *_: pytest.fail("asked for a base"))
    settings = project.resolve(None, None, corpus)
    started, base = start_from_base(settings, features(10.0), None)
    assert base is None
    assert started.config.training.start_from == "none"
    assert started.config.model_copy(update={"training": settings.config.training}) == settings.config


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--languages", "en,xx", "no sentences in xx"),
        ("--model-size", "huge", "unknown size 'huge'; known: xtiny, tiny"),
    ],
)
def test_base_make_refuses_what_it_cannot_make_before_anything_starts(monkeypatch, option, value, message):
    monkeypatch.setattr("pipelines.cli.base.ensure_base", lambda *_: pytest.fail("started"))
    answer = CliRunner().invoke(base_group, ["make", option, value])
    assert answer.exit_code == 2
    assert message in answer.output
