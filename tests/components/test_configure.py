"""The step that resolves the parameters of a run: data, base voice, and the settings of each step."""

import json

import pytest

from components.base_voice import BaseVoice
from components.configure import run as configure
from components.configure.parameters import PARAMETERS, SECTIONS, from_parameters, step_settings, to_parameters
from components.contracts import StepError
from components.data_versions import LATEST, DataRecords, DataVersion
from model.config.resolution import ConfigError, base_layers, resolve
from model.diagnosis.checklist import ChecklistError
from pipelines.training_pipeline import arguments

OLD, NEW = "0" * 32 + ".dir", "1" * 32 + ".dir"
BASE = resolve(overrides={"model_size": "xtiny", "model.ffn_dim": 96}).config.model_dump(mode="json")


def version(data_hash: str, seconds: float = 600.0) -> DataVersion:
    return DataVersion(data_hash=data_hash, clips=9, seconds=seconds, languages=("en",))


@pytest.fixture
def remote(tmp_path, monkeypatch) -> str:
    """A folder as remote, with one recorded version of the corpus `reader`."""
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / "state"))
    DataRecords(str(tmp_path)).write(version(OLD), latest_of="reader")
    return str(tmp_path)


def started(remote: str, data: str = OLD, name: str = "", **changes: str):
    parameters = {**to_parameters(resolve().config), **changes}
    return configure.run(data=data, remote=remote, corpus="reader", name=name, **parameters)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"model_size": "big", "optimization_level": "basic", "seed": 7},
        {"training.max_steps": 7, "training.batch_size": 3, "training.learning_rate": 1e-05},
        {"vocoder.type": "hifigan", "loss.mel_loss_weight": 3.0, "registry.name": "{corpus}"},
        {"features.speaker_encoder_weights": "کدگذار.pt", "model.enable_gst": False},
    ],
)
def test_the_step_gives_every_step_the_settings_that_the_parameters_were_made_of(remote, overrides):
    config = resolve(overrides=overrides).config
    output = configure.run(data=OLD, remote=remote, corpus="reader", name="", **to_parameters(config))
    assert {name: getattr(output, name) for name in step_settings(config)} == step_settings(config)


def test_parameters_are_the_same_wherever_a_setting_comes_from(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("model_size: small\ntraining: {max_steps: 7}\nloss: {mel_loss_weight: 3}\n")
    given = {"model_size": "small", "training.max_steps": 7, "loss.mel_loss_weight": 3.0}
    assert to_parameters(resolve(file).config) == to_parameters(resolve(overrides=given).config)


def test_what_depends_on_the_model_size_follows_it(remote):
    """Changing only the size on the page also changes the default steps and batch size."""
    settings = json.loads(started(remote, model_size="small").train_settings)
    usual = resolve(overrides={"model_size": "small"}).config.training
    assert settings["training"]["max_steps"] == usual.max_steps
    assert settings["training"]["batch_size"] == usual.batch_size


@pytest.mark.parametrize("text", ["", "{}", "loss: {mel_loss_weight: 3}", '{"loss.mel_loss_weight": 3}'])
def test_further_settings_are_json_or_yaml_nested_or_dotted(remote, text):
    weight = json.loads(started(remote, settings=text).train_settings)["loss"]["mel_loss_weight"]
    assert weight == (3.0 if "3" in text else resolve().config.loss.mel_loss_weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_steps": "many"}, r"parameters of the run: `training\.max_steps` = 'many'"),
        ({"settings": '{"training.stepz": 3}'}, r"unknown setting `training\.stepz`; did you mean"),
        ({"settings": "[1]"}, "parameter `settings`: is a list"),
        ({"settings": "{"}, "parameter `settings`: neither JSON nor YAML"),
        ({"max_steps": "5", "settings": '{"training.max_steps": 6}'}, "remove one"),
        ({"model_size": "huge"}, "'huge' is not one of"),
        ({"settings": '{"vocoder.checkpoint": "https://u:p@h/g"}'}, r"cluster\.s3_secret"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(remote, changes, said):
    with pytest.raises(ConfigError, match=said):
        started(remote, **changes)


def test_dangerous_settings_start_no_run(remote):
    with pytest.raises(ChecklistError):
        started(remote, settings='{"loss.mel_loss_weight": 1000}')


def test_latest_is_the_newest_version_when_the_run_starts(remote):
    """A scheduled run uses data that were pushed after its schedule was made; a hash always means the same data."""
    assert started(remote, LATEST).data_hash == OLD
    DataRecords(remote).write(version(NEW), latest_of="reader")
    assert started(remote, LATEST).data_hash == NEW
    assert started(remote, OLD).data_hash == OLD
    with pytest.raises(StepError, match=r"no version of the corpus `other`.*myxtts corpus push"):
        configure.run(data=LATEST, remote=remote, corpus="other", name="", **to_parameters(resolve().config))


def test_the_model_is_named_after_corpus_and_size_or_as_asked(remote):
    assert started(remote, model_size="small").model_name == "myxtts-reader-small"
    assert started(remote, name="mine").model_name == "mine"


def test_the_base_voice_is_pinned_and_adapted_to_the_speech_of_the_data(remote, tmp_path, monkeypatch):
    base = BaseVoice(uri="models:/base/3", folder=tmp_path, weights_sha256="c" * 64, languages=("en",), config=BASE)
    monkeypatch.setattr(configure, "find_base", lambda *_: base)
    training, chosen = {}, {"start_from": "models:/base@champion", "model_size": ""}
    for seconds in (30.0, 1200.0):
        DataRecords(remote).write(version(NEW, seconds))
        settings = json.loads(started(remote, NEW, **chosen).train_settings)
        assert settings["model_size"] == "xtiny"
        assert settings["model"]["ffn_dim"] == 96
        training[seconds] = settings["training"]
        assert training[seconds]["start_from"] == "models:/base/3"
        assert training[seconds]["start_from_sha256"] == "c" * 64
    assert training[30.0]["max_steps"] < training[1200.0]["max_steps"]
    asked = json.loads(started(remote, NEW, **chosen, max_steps="7").train_settings)
    assert asked["training"]["max_steps"] == 7


def test_settings_that_follow_from_a_base_voice_are_no_parameters():
    """Another base voice, chosen on the page, must not inherit the size and the steps of the first one."""
    derived = base_layers(BASE, 30.0)
    config = resolve(overrides={"training.start_from": "models:/base/3"}, derived=derived).config
    parameters = to_parameters(config, derived)
    assert (parameters["start_from"], parameters["model_size"], parameters["max_steps"]) == ("models:/base/3", "", "")
    assert parameters["settings"] == "{}"


@pytest.mark.parametrize("made", [True, False])
def test_auto_takes_the_base_of_the_languages_or_starts_from_scratch(remote, tmp_path, monkeypatch, made):
    base = BaseVoice(uri="models:/base/3", folder=tmp_path, weights_sha256="c" * 64, languages=("en",), config=BASE)
    asked = []
    monkeypatch.setattr(configure, "find_made_base", lambda _, *about: asked.append(about) or (base if made else None))
    settings = json.loads(started(remote, start_from="auto").train_settings)
    assert asked == [(("en",), "tiny")]
    assert settings["training"]["start_from"] == ("models:/base/3" if made else "none")


@pytest.mark.parametrize(("form", "start_from"), [("generated", "none"), ("ljspeech", "auto")])
def test_auto_means_none_for_generated_speech_when_parameters_are_made(form, start_from):
    config = resolve(overrides={"corpus.format": form, "training.start_from": "auto"}).config
    assert arguments(config, LATEST, "s3://bucket/dvc")["start_from"] == start_from


def test_the_whole_configuration_is_kept_and_shown(remote):
    output = started(remote, max_steps="7", settings='{"loss.mel_loss_weight": 3}')
    configuration = json.loads(output.configuration)
    assert {key.partition(".")[0] for key in configuration} == SECTIONS
    assert configuration["training.max_steps"] == {"value": 7, "origin": "parameters of the run"}
    page = configure.results(output).markdown
    assert "| `loss.mel_loss_weight` | `3.0` | parameters of the run |" in page
    assert f"Data: `{OLD}`" in page
    assert "training.use_mixed_precision: " in page  # a default: in the list of all


def test_every_parameter_stands_for_a_setting_that_a_step_reads():
    assert {key.partition(".")[0] for key in PARAMETERS.values()} <= SECTIONS
    parameters = to_parameters(resolve().config)
    assert set(parameters) == {*PARAMETERS, "settings"}
    assert resolve(overrides=from_parameters(parameters)).config == resolve().config
