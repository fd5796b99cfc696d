from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from other_process import OtherProcess

from components.artifacts import ARTIFACT_TAG, VOICE_TAG, ArtifactError, combined_hash, file_hashes
from components.registry import (
    CANDIDATE,
    CHAMPION,
    GATE,
    PREVIOUS,
    Registry,
    RegistryError,
    Version,
    find_voice,
    model_name,
    parse_uri,
    registered_speaker_encoder,
)
from components.smoke_test import smoke_test
from model.files import sha256_of_file

NAME = "myxtts-toy-xtiny"


@pytest.fixture
def registry(state) -> Registry:
    """A registry with three versions of one model."""
    found = Registry(state)
    experiment = found.client.create_experiment("e", artifact_location=state.folder("mlartifacts", "e").as_uri())
    run = found.client.create_run(experiment)
    found.client.create_registered_model(NAME)
    for number in range(3):
        tags = {"metric.mel_cepstral_distortion": str(6.0 + number)}
        found.client.create_model_version(NAME, f"{run.info.artifact_uri}/voice", run_id=run.info.run_id, tags=tags)
    return found


def aliases(registry: Registry) -> tuple[str, str]:
    found = registry.aliases(NAME)
    return found.get(CHAMPION, ""), found.get(PREVIOUS, "")


@pytest.mark.parametrize("text", ["", "{", "[]", '"pass"', '{"smoke test": 1}', '{"smoke test": "pass: ok"} x'])
def test_a_damaged_tag_of_the_gate_counts_as_no_checks(registry, caplog, text):
    registry.client.set_model_version_tag(NAME, "1", GATE, text)
    assert registry.version(NAME, "1").checks == {}
    assert f"{NAME} version 1: its tag `gate` is damaged" in caplog.text


def test_versions_come_newest_first_with_their_metrics(registry):
    versions = registry.versions(NAME)
    assert [item.number for item in versions] == ["3", "2", "1"]
    assert versions[0].metrics == {"mel_cepstral_distortion": 8.0}


def test_a_model_is_found_by_a_name_in_any_script(state):
    name = model_name("myxtts-{corpus}-{size}", "Käthe-हिन्दी-سارا", "tiny")
    registry = Registry(state)
    registry.client.create_registered_model(name)
    registry.client.create_model_version(name, "file:///voice")
    registry.promote(name, "1", "", "first")
    assert registry.version(name, CHAMPION).number == "1"
    assert name in registry.names()


def test_promotion_keeps_the_old_champion_as_previous(registry):
    registry.promote(NAME, "1", "", "first")
    assert aliases(registry) == ("1", "")
    registry.promote(NAME, "2", "1", "better")
    assert aliases(registry) == ("2", "1")
    assert "better" in registry.version(NAME, CHAMPION).tags["promoted"]


def test_promoting_the_champion_again_changes_nothing(registry):
    registry.promote(NAME, "1", "", "first")
    registry.promote(NAME, "2", "1", "better")
    registry.promote(NAME, "2", "2", "again")
    assert aliases(registry) == ("2", "1")


def test_equal_runs_that_promote_the_same_version_at_once_both_succeed(registry):
    registry.promote(NAME, "1", "", "first")
    for _ in range(2):
        registry.promote(NAME, "2", "1", "both compared with version 1")
    assert aliases(registry) == ("2", "1")


def test_rollbacks_return_to_earlier_champions_one_by_one(registry):
    for number in ("1", "2", "3"):
        registry.promote(NAME, number, None, "next")
    assert registry.rollback(NAME, "clicks") == ("3", "2")
    assert aliases(registry) == ("2", "1")
    assert "clicks" in registry.version(NAME, "3").tags["rolled_back"]
    assert registry.rollback(NAME, "worse") == ("2", "1")
    assert aliases(registry) == ("1", "")
    with pytest.raises(RegistryError, match="no previous champion"):
        registry.rollback(NAME, "once more")


def test_promotion_by_hand_removes_the_mark_of_a_rollback(registry):
    registry.promote(NAME, "1", None, "first")
    registry.promote(NAME, "2", None, "second")
    registry.rollback(NAME, "mistaken")
    registry.promote(NAME, "2", None, "was right after all")
    assert "rolled_back" not in registry.version(NAME, "2").tags
    assert aliases(registry) == ("2", "1")


def test_a_champion_that_moved_since_the_comparison_stops_the_promotion(registry):
    registry.promote(NAME, "2", "", "meanwhile")
    with pytest.raises(RegistryError, match="compare again"):
        registry.promote(NAME, "3", "1", "compared with 1")
    assert aliases(registry) == ("2", "")


@pytest.mark.parametrize("failure", [RegistryError("silent"), KeyboardInterrupt()])
def test_a_failed_smoke_test_changes_nothing(registry, failure):
    registry.promote(NAME, "1", "", "first")
    registry.promote(NAME, "2", "1", "second")

    def check(version):
        assert version.number == "3"
        assert aliases(registry) == ("2", "1")
        raise failure

    with pytest.raises(type(failure)):
        registry.promote(NAME, "3", "2", "third", check)
    assert aliases(registry) == ("2", "1")
    assert "promoted" not in registry.version(NAME, "3").tags


def test_unknown_versions_and_models_are_named(registry):
    with pytest.raises(RegistryError, match="no version `9`; it has: 3, 2, 1"):
        registry.version(NAME, "9")
    for name in ("other", "o'brien", "a/b:c", ""):
        with pytest.raises(RegistryError, match=f"no model is named .*registered models: {NAME}"):
            registry.version(name, CHAMPION)


@pytest.mark.parametrize(
    ("uri", "expected"), [("models:/a-b@champion", ("a-b", "champion")), ("models:/a-b/3", ("a-b", "3"))]
)
def test_addresses_are_read(uri, expected):
    assert parse_uri(uri) == expected


@pytest.mark.parametrize("uri", ["a@champion", "models:/a", "models:/@champion", "models:/a@"])
def test_malformed_addresses_are_refused(uri):
    with pytest.raises(RegistryError, match="not a registered model"):
        parse_uri(uri)


def test_names_come_from_the_template():
    assert model_name("tts-{corpus}-{size}", "lj", "tiny") == "tts-lj-tiny"
    with pytest.raises(RegistryError, match=r"no placeholders but \{corpus\} and \{size\}"):
        model_name("tts-{speaker}", "lj", "tiny")
    for unusable in ("team/{corpus}", "o'brien-{size}", ""):  # hours later MLflow would refuse it
        with pytest.raises(RegistryError, match="may hold only letters"):
            model_name(unusable, "lj", "tiny")


def test_models_beyond_the_first_page_are_listed(registry):
    for number in range(101):
        registry.client.create_registered_model(f"voice-{number}")
    assert len(registry.names()) == 102


def everything(registry: Registry) -> tuple[dict[str, str], list[Version]]:
    """Returns the aliases and versions of the model."""
    return registry.aliases(NAME), registry.versions(NAME)


def test_rollback_to_a_version_that_was_deleted_changes_nothing(registry):
    for number in ("1", "2"):
        registry.promote(NAME, number, None, "next")
    registry.client.delete_model_version(NAME, "1")
    before = everything(registry)
    with pytest.raises(RegistryError, match="no previous champion"):
        registry.rollback(NAME, "clicks")
    assert everything(registry) == before


def test_rollback_keeps_no_previous_champion_that_was_deleted(registry):
    for number in ("1", "2", "3"):
        registry.promote(NAME, number, None, "next")
    registry.client.delete_model_version(NAME, "1")
    assert registry.rollback(NAME, "clicks") == ("3", "2")
    assert aliases(registry) == ("2", "")


def test_a_promotion_keeps_no_previous_champion_that_was_deleted(registry):
    for number in ("1", "2"):
        registry.promote(NAME, number, None, "next")
    registry.client.delete_model_version(NAME, "2")
    registry.promote(NAME, "3", None, "next")
    assert aliases(registry) == ("3", "1")


def test_a_rollback_that_mlflow_interrupts_is_finished_by_the_next_who_looks(registry, monkeypatch):
    """Without the tag of the rollback, the gate would promote the version again at the next run."""
    for number in ("1", "2", "3"):
        registry.promote(NAME, number, None, "next")

    def refused(*_):
        raise MlflowException("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(registry.client, "set_model_version_tag", refused)
        with pytest.raises(MlflowException):
            registry.rollback(NAME, "clicks")
    assert "clicks" in Registry(registry.state).version(NAME, "3").tags["rolled_back"]
    assert aliases(registry) == ("2", "1")


def test_a_version_that_was_deleted_cannot_be_promoted(registry):
    registry.promote(NAME, "1", None, "first")
    registry.client.delete_model_version(NAME, "3")
    before = everything(registry)
    with pytest.raises(RegistryError, match="no version `3`; it has: 2, 1 @champion"):
        registry.promote(NAME, "3", None, "gone")
    assert everything(registry) == before


def test_a_promotion_keeps_the_candidate(registry):
    registry.client.set_registered_model_alias(NAME, CANDIDATE, "3")
    registry.promote(NAME, "3", None, "first")
    assert registry.version(NAME, "3").aliases == (CANDIDATE, CHAMPION)
    assert registry.version(NAME, CANDIDATE).number == "3"


@pytest.mark.slow  # a second process; test_registry_faults.py has all orders of events
def test_two_processes_with_states_of_their_own_agree_on_one_champion(registry, tmp_path, monkeypatch):
    """Both gates compared with version 1, and promote at the same moment."""
    registry.promote(NAME, "1", None, "first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry.state.tracking_database}")
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / "other"))
    other = OtherProcess(f"Registry(State.locate()).promote({NAME!r}, '2', '1', 'passed')")
    results = []

    def check(version):
        other.meet()

    try:
        registry.promote(NAME, "3", "1", "passed", check)
        results.append("3")
    except RegistryError:
        results.append("other")
    status = other.finish()
    won = "3" if results == ["3"] else "2"
    assert (status == 0) == (won == "2"), other.lines
    assert aliases(registry) == (won, "1")


TONE = 0.1 * np.sin(np.arange(22050) / 10)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (TONE, ""),
        (TONE[:2206], ""),
        (TONE[:2000], r"synthesized 0\.09 s"),
        (TONE[:0], "of nothing"),
        (0.005 * TONE, r"synthesized 1\.00 s of silence"),
    ],
)
def test_a_voice_that_says_nothing_audible_fails_its_smoke_test(samples, reason, monkeypatch, tmp_path):
    folder = tmp_path / "artifacts" / "voice"
    folder.mkdir(parents=True)
    loaded = []

    class Voice:
        def __init__(self, voice: Path, speaker_encoder: Path | None) -> None:
            assert (voice, speaker_encoder) == (folder, None)

        def synthesize(self, text: str) -> SimpleNamespace:
            assert text
            return SimpleNamespace(samples=samples, sample_rate=22050)

    monkeypatch.setattr("components.smoke_test.find_voice", lambda address: loaded.append(address) or folder)
    monkeypatch.setattr("components.smoke_test.Synthesizer", Voice)
    version = Version(name="m", number="4", tags={}, aliases=(), source="", run_id="", created=0.0)
    if reason:
        with pytest.raises(RegistryError, match=f"m version 4 .*{reason}.*not promoted"):
            smoke_test(version)
    else:
        smoke_test(version)
    assert loaded == ["models:/m/4"]


@pytest.fixture
def stored(registry, tmp_path) -> Path:
    """Files of version 4, which is the champion."""
    folder = tmp_path / "stored"
    (folder / "artifacts" / "voice").mkdir(parents=True)
    (folder / "artifacts" / "voice" / "voice.json").write_text("{}")
    tags = {ARTIFACT_TAG: combined_hash(file_hashes(folder))}
    registry.client.create_model_version(NAME, folder.as_uri(), tags=tags)
    registry.promote(NAME, "4", None, "first")
    return folder


def test_a_registered_voice_is_found_by_alias_and_number(registry, stored):
    for address in (f"models:/{NAME}@champion", f"models:/{NAME}/4"):
        assert find_voice(address) == stored / "artifacts" / "voice"
    assert find_voice("some/folder") == Path("some/folder")
    with pytest.raises(RegistryError, match="no version `9`"):
        find_voice(f"models:/{NAME}/9")


def record_hash(registry: Registry, folder: Path) -> None:
    registry.client.set_model_version_tag(NAME, "4", ARTIFACT_TAG, combined_hash(file_hashes(folder)))


def test_a_registered_voice_brings_the_speaker_encoder_beside_it(registry, stored):
    voice = find_voice(f"models:/{NAME}@champion")
    assert registered_speaker_encoder(voice) is None
    (stored / "artifacts" / "resemblyzer.safetensors").touch()
    record_hash(registry, stored)
    voice = find_voice(f"models:/{NAME}@champion")
    assert registered_speaker_encoder(voice) == stored / "artifacts" / "resemblyzer.safetensors"


def test_a_version_without_a_voice_is_named(registry, stored):
    (stored / "artifacts" / "voice" / "voice.json").unlink()
    record_hash(registry, stored)
    with pytest.raises(RegistryError, match=r"\(version 4\) has no voice\.json"):
        find_voice(f"models:/{NAME}@champion")


@pytest.mark.parametrize("file", ["artifacts/voice/voice.json", "pyfunc_model.py", "code/model/new.py"])
def test_a_version_whose_files_were_changed_is_not_loaded(stored, file):
    path = stored / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as changed:
        changed.write("\nimport os\n")
    with pytest.raises(ArtifactError, match=f"{NAME} version 4: .*not those that were registered"):
        find_voice(f"models:/{NAME}@champion")


def test_a_version_from_before_all_files_were_hashed_is_compared_by_its_description(registry, stored):
    registry.client.delete_model_version_tag(NAME, "4", ARTIFACT_TAG)
    with pytest.raises(ArtifactError, match="no recorded hash"):
        find_voice(f"models:/{NAME}/4")
    description = stored / "artifacts" / "voice" / "voice.json"
    registry.client.set_model_version_tag(NAME, "4", VOICE_TAG, sha256_of_file(description))
    assert find_voice(f"models:/{NAME}/4") == description.parent
    description.write_text("{} ")
    with pytest.raises(ArtifactError, match="not those that were registered"):
        find_voice(f"models:/{NAME}/4")


def test_compiled_code_beside_the_code_is_no_change(stored):
    (stored / "__pycache__").mkdir()
    (stored / "__pycache__" / "pyfunc_model.pyc").write_bytes(b"x")
    assert find_voice(f"models:/{NAME}/4") == stored / "artifacts" / "voice"
