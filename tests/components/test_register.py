"""The step `register`: a trained voice becomes a model version with lineage, metrics and alias."""

import json
import os
import re
from pathlib import Path

import pytest
from evaluated_voice import DATA, FEATURES, WEIGHTS, evaluated_voice
from other_process import OtherProcess

from components import lineage
from components.artifacts import ArtifactError
from components.contracts import StepError
from components.register import run as module
from components.register.run import run
from components.registry import CANDIDATE, CHAMPION, Registry, RegistryError
from components.smoke_test import smoke_test
from model.voice_folder import voice_hash

NAME = "myxtts-toy-xtiny"
DOCS = Path(__file__).parents[2] / "docs" / "registry.md"
GIVEN = {
    "kfp.run_id": "run-7",
    "git.sha": "abc123",
    "git.dirty": "true",
    "dvc.lock.sha256": "10ck",
    "params.sha256": "9a3a",
    "image": "myxtts-python-train:content-77",
}
METRICS = {"mel_cepstral_distortion": 6.25, "character_error_increase": 0.125, "alignment_monotonicity": 0.96875}


@pytest.fixture
def voice(tmp_path) -> Path:
    """A voice with placeholder weights."""
    folder = tmp_path / "voice"
    folder.mkdir()
    config = {"model": {"use_pretrained_speaker_encoder": False}, "features": {}}
    (folder / "voice.json").write_text(json.dumps({"config": config}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def register(state, voice, tmp_path, monkeypatch):
    """Returns a function from values of the metrics to the output of the step for this voice."""
    monkeypatch.setenv(lineage.VARIABLE, json.dumps(GIVEN))
    for name in ("KFP_RUN_ID", "MYXTTS_IMAGE", "MYXTTS_GIT_SHA"):
        monkeypatch.delenv(name, raising=False)

    def call(values=METRICS, voice=voice, folder="evaluation"):
        return run(**evaluated_voice(state, voice, tmp_path / folder, values), name=NAME)

    call.registry = Registry(state)
    return call


def another(voice: Path, name: str) -> Path:
    """Makes a copy of a voice with other settings."""
    folder = voice.with_name(name)
    folder.mkdir()
    described = json.loads((voice / "voice.json").read_text())
    (folder / "voice.json").write_text(json.dumps({**described, "name": name}))
    (folder / "model.safetensors").write_bytes(b"other weights")
    return folder


def documented_tags() -> set[str]:
    """Returns the tags in the table of lineage in the docs."""
    section = DOCS.read_text("utf-8").partition("## Lineage")[2].partition("\n##")[0]
    return {tag for row in re.findall(r"(?m)^\| (`.*?) \|", section) for tag in re.findall(r"`([^`]+)`", row)}


def test_a_version_carries_every_tag_that_the_docs_promise(register, voice):
    answer = register()
    version = register.registry.version(NAME, answer.version)
    expected = {
        **GIVEN,
        "dvc.data": DATA,
        "features.hash": FEATURES,
        "weights.sha256": WEIGHTS,
        "voice.sha256": voice_hash(voice),
        "artifact.sha256": version.tags["artifact.sha256"],
    }
    assert {key: value for key, value in version.tags.items() if not key.startswith("metric.")} == expected
    assert documented_tags() == set(expected) | {"settings.sha256"}  # that one is of the training's run

    run_of_training = register.registry.client.get_run(version.run_id)
    assert {key: run_of_training.data.tags[key] for key in expected} == expected
    assert run_of_training.info.status == "FINISHED"


def test_a_version_names_the_ancestors_and_the_licenses_of_its_voice(register, voice):
    path = another(voice, "adapted") / "voice.json"
    lineage = [{"uri": f"models:/{name}/1", "weights_sha256": name * 64} for name in "abc"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "lineage": lineage, "licenses": ["CC0-1.0", "MIT"]}))
    tags = register.registry.version(NAME, register(voice=path.parent).version).tags
    assert tags["base.chain"] == "models:/a/1 <- models:/b/1 <- models:/c/1"
    assert tags["base.weights_sha256"] == "a" * 64
    assert tags["data.license"] == "CC0-1.0; MIT"


def test_the_metrics_of_the_gate_are_kept_with_the_version(register):
    version = register.registry.version(NAME, register().version)
    assert version.metrics == METRICS


def test_a_version_is_described_by_its_model_card(register, voice):
    path = another(voice, "described") / "voice.json"
    described = json.loads(path.read_text())
    described |= {"languages": ["en", "fa"], "speaker_languages": {"anna": "en", "omid": "fa"}, "steps": 900}
    described |= {"lineage": [{"uri": "models:/base/1", "weights_sha256": "a"}], "licenses": ["CC0-1.0"]}
    path.write_text(json.dumps(described))
    foreign = {"character_error_increase": None, "phone_error_increase": 0.05, "phone_error": 0.4}
    register({**METRICS, **foreign}, voice=path.parent)
    card = register.registry.client.get_model_version(NAME, "1").description
    for line in (
        f"# {NAME}",
        "900 training steps",
        "- Languages: en, fa",
        "- Speakers: 1 of en, 1 of fa (anna, omid)",
        f"- Data: `{DATA}` (DVC)",
        "- Started from: models:/base/1",
        "- License of the recordings: CC0-1.0",
        "- Code: commit `abc123`",
        "- Not evaluated in fa: no sentences were held out.",
        "- No character error increase: it was not measured.",
    ):
        assert line in card
    assert re.search(r"\| Mel-cepstral distortion \(dB; lower is better\) \| 6\.25 \| 6\.\d+ to 6\.\d+ \| 20 \|", card)
    assert re.search(
        r"\| Phone error rate \(edits per phone; lower is better\) \| 0\.400 \| 0\.3\d+ to 0\.4\d+ \| 20 \|", card
    )
    assert "Character error rate (edits" not in card


def test_the_card_names_no_phone_error_that_the_character_error_makes_needless(register):
    card = register.registry.client.get_model_version(NAME, register().version).description
    assert "Character error rate (edits" in card
    assert "phone error" not in card.lower()


def test_the_logged_model_has_the_metrics_and_an_example(register, voice):
    path = another(voice, "speaking") / "voice.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "speakers": {"anna": {}}}))
    register(voice=path.parent)
    latest = {**METRICS, "alignment_monotonicity": 0.5, "phone_error": 0.4}
    version = register.registry.version(NAME, register(latest, path.parent).version)
    logged = register.registry.client.get_logged_model(version.source.rpartition("/")[2])
    values = {metric.key: metric.value for metric in logged.metrics}
    assert values["evaluation/mel_cepstral_distortion"] == pytest.approx(6.25)
    assert values["evaluation/dnsmos"] == pytest.approx(3.0)
    assert values["evaluation/phone_error"] == pytest.approx(0.4)
    assert values["evaluation/alignment_monotonicity"] == 0.5  # of the latest evaluation
    import mlflow

    model = mlflow.models.Model.load(version.source)
    example = json.loads(model.get_serving_input(mlflow.artifacts.download_artifacts(version.source)))
    assert example["params"] == {"speed": 1.0}
    assert example["dataframe_split"]["columns"] == ["text", "language", "speaker"]
    assert example["dataframe_split"]["data"] == [["Sentence 0.", "en", "anna"]]
    assert model.signature.inputs.input_names()[0] == "text"


def test_an_equal_voice_is_registered_once_and_becomes_candidate_again(register, voice):
    first = register()
    second = register(voice=another(voice, "second"), folder="second")
    assert (first.version, second.version) == ("1", "2")
    assert register.registry.aliases(NAME) == {CANDIDATE: "2"}
    assert register() == first
    assert register.registry.aliases(NAME) == {CANDIDATE: "1"}
    assert len(register.registry.versions(NAME)) == 2


def test_of_two_machines_that_register_one_voice_both_name_the_older_version(register, voice, monkeypatch, tmp_path):
    """The other machine, with its own state folder, registers its version during the upload of this one."""
    created = module._create
    files = tmp_path / "of-the-other"
    files.mkdir()
    (files / "MLmodel").touch()

    def create(registry, state, spool, folder, name, tags, example):
        registry.client.create_registered_model(name)
        registry.client.create_model_version(name, str(files), tags=tags)
        created(registry, state, spool, folder, name, tags, example)

    monkeypatch.setattr(module, "_create", create)
    assert register().version == "1"
    assert [item.number for item in register.registry.versions(NAME)] == ["1"]
    assert register.registry.aliases(NAME) == {CANDIDATE: "1"}


def test_a_voice_whose_version_was_deleted_is_registered_anew(register):
    register()
    register.registry.client.delete_model_version(NAME, "1")
    assert register().version == "2"
    assert register.registry.aliases(NAME) == {CANDIDATE: "2"}


def test_a_training_whose_run_was_deleted_is_recorded_again_and_registered(register, state, voice, tmp_path):
    evaluated_voice(state, voice, tmp_path / "evaluation", METRICS)
    run_id = json.loads((tmp_path / "evaluation" / "mlflow" / "run.json").read_text())["run_id"]
    register.registry.client.delete_run(run_id)
    version = register.registry.version(NAME, register().version)
    assert version.run_id not in ("", run_id)
    assert register.registry.client.get_run(version.run_id).data.tags["voice.sha256"] == voice_hash(voice)


def test_registering_does_not_touch_the_champion(register, voice):
    register()
    register.registry.promote(NAME, "1", "", "first")
    register(voice=another(voice, "second"), folder="second")
    assert register.registry.aliases(NAME) == {CHAMPION: "1", CANDIDATE: "2"}


def test_metrics_that_no_longer_apply_do_not_stay_with_the_version(register):
    register()
    register({**METRICS, "character_error_increase": None, "alignment_monotonicity": 0.5})
    version = register.registry.version(NAME, CANDIDATE)
    assert version.number == "1"
    assert version.metrics == {"mel_cepstral_distortion": 6.25, "alignment_monotonicity": 0.5}


def test_a_version_holds_the_voice(register, voice):
    answer = register()
    held = register.registry.voice_folder(f"models:/{NAME}/{answer.version}")
    for file in ("voice.json", "model.safetensors"):
        assert (held / file).read_bytes() == (voice / file).read_bytes()


def test_a_store_that_returns_other_code_than_it_was_given_gets_no_version(register, monkeypatch):
    import mlflow

    download = mlflow.artifacts.download_artifacts

    def tampered(uri: str) -> str:
        folder = Path(download(uri))
        with (folder / "pyfunc_model.py").open("a") as file:
            file.write("\nimport os\n")
        return str(folder)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", tampered)
    with pytest.raises(ArtifactError, match=r"pyfunc_model\.py came back .* with other content"):
        register()
    assert register.registry.versions(NAME) == []


def test_code_that_was_changed_in_the_store_is_neither_executed_nor_accepted(register, marker):
    version = register.registry.version(NAME, register().version)
    import mlflow

    stored = Path(mlflow.artifacts.download_artifacts(version.source))
    assert register.registry.verified_files(version) == stored
    with (stored / "pyfunc_model.py").open("a") as file:
        file.write(f"\nopen({str(marker)!r}, 'w')\n")
    with pytest.raises(ArtifactError, match="not those that were registered"):
        smoke_test(version)
    assert not marker.exists()


@pytest.fixture
def marker(tmp_path) -> Path:
    """File that foreign code would write."""
    return tmp_path / "executed"


def test_the_version_belongs_to_the_run_of_its_training(register, monkeypatch):
    """Kubeflow's MLflow plugin names a run of its own in the environment."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    version = register.registry.version(NAME, register().version)
    assert register.registry.client.get_run(version.run_id).info.run_name == "r"
    assert "MLFLOW_RUN_ID" not in os.environ


def test_without_a_tracking_server_there_is_no_version(register, state, voice, tmp_path, monkeypatch):
    inputs = evaluated_voice(state, voice, tmp_path / "evaluation", METRICS)
    (tmp_path / "evaluation" / "mlflow" / "run.json").unlink()

    def attempt(delivery):
        delivery.error = "MLflow answered: disk full"
        return False

    monkeypatch.setattr(module.Delivery, "attempt", attempt)
    with pytest.raises(StepError, match=r"did not take the records.*answered: disk full"):
        run(**inputs, name=NAME)
    assert register.registry.versions(NAME) == []


def test_two_processes_that_register_the_same_voice_make_one_version(register, state, voice, tmp_path, monkeypatch):
    inputs = evaluated_voice(state, voice, tmp_path / "evaluation", METRICS)
    other = OtherProcess(f"from components.register.run import run; run(**{inputs!r}, name={NAME!r})")

    def log_voice(*arguments):
        other.meet()
        return logged(*arguments)

    logged = module.log_voice
    monkeypatch.setattr(module, "log_voice", log_voice)
    assert run(**inputs, name=NAME).version == "1"
    assert other.finish() == 0, other.lines
    assert other.waited
    assert [version.number for version in register.registry.versions(NAME)] == ["1"]


def test_a_version_without_its_files_is_named_and_the_voice_is_registered_anew(register):
    """`mlflow gc` removes the files of deleted models for good; the version stays."""
    first = register()
    registry = register.registry
    version = registry.version(NAME, first.version)
    assert registry.has_files(version)
    registry.client.delete_logged_model(version.source.rpartition("/")[2])
    assert not registry.has_files(version)
    with pytest.raises(RegistryError, match=r"\(version 1\): MLflow no longer has its files.*run the pipeline again"):
        registry.voice_folder(f"models:/{NAME}/{first.version}")
    again = register()
    assert (first.version, again.version) == ("1", "2")
    assert registry.has_files(registry.version(NAME, again.version))
    assert register().version == "2"
