"""Candidate and champions are evaluated on the same sentences, which none of them was trained on."""

import pytest
from step_records import step_records

from components.evaluate import run as evaluating
from components.gate.examination import ExaminationError, examine
from components.registry import Registry
from components.state import write_json
from model.config.evaluation import EvaluateSettings
from model.config.schema import Config
from model.voice_folder import voice_hash, write_training_sentences

NAME = "m"


@pytest.fixture
def registry(state):
    registry = Registry(state)
    registry.client.create_registered_model(NAME)
    return registry


@pytest.fixture
def add(registry, tmp_path):
    """Returns a function that registers a version with these training sentences and returns it."""

    def add(sentences, data="theirs"):
        number = str(len(registry.versions(NAME)) + 1)
        voice = tmp_path / number / "artifacts" / "voice"
        voice.mkdir(parents=True)
        write_json(voice / "voice.json", {"number": number})
        if sentences is not None:
            write_training_sentences(voice, sentences)
        tags = {"voice.sha256": voice_hash(voice), "dvc.data": data}
        registry.client.create_model_version(NAME, (tmp_path / number).as_uri(), tags=tags)
        return registry.version(NAME, number)

    return add


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Arguments of the requested evaluations."""
    asked = []

    def evaluation_of(**arguments):
        asked.append(arguments)
        folder = tmp_path / f"evaluation-{len(asked)}"
        write_json(folder / "metrics.json", {"of": arguments["voice_hash"]})
        return folder

    monkeypatch.setattr(evaluating, "evaluation_of", evaluation_of)
    return asked


def test_all_are_evaluated_on_the_candidates_data_without_sentences_that_any_was_trained_on(
    state, registry, add, asked, tmp_path
):
    candidate, champion, best = add(["c"]), add(["a", "b"]), add([])
    ours = step_records(tmp_path)
    settings = EvaluateSettings.of(Config())
    found = examine(state, registry, candidate, [champion, best], ours["data"], ours["features"], settings)
    hashes = {version.number: version.tags["voice.sha256"] for version in (candidate, champion, best)}
    assert len(set(hashes.values())) == 3
    assert found[0].metrics == {"of": hashes["1"]}
    assert {number: other.metrics["of"] for number, other in found[1].items()} == {n: hashes[n] for n in "23"}
    shared = {"corpus": ours["data"], "store": ours["features"], "settings": settings, "state": state, "step": "gate"}
    for arguments, number in zip(asked, "123", strict=True):
        assert arguments == {
            **shared,
            "voice": tmp_path / number / "artifacts" / "voice",
            "voice_hash": hashes[number],
            "exclude": frozenset("abc"),
        }


def test_a_champion_of_another_corpus_without_recorded_training_sentences_is_not_compared(
    state, registry, add, asked, tmp_path
):
    ours = step_records(tmp_path)
    candidate = add(["c"])
    arguments = (ours["data"], ours["features"], EvaluateSettings.of(Config()))
    examine(state, registry, candidate, [add(None, data=ours["data"].data_hash)], *arguments)
    with pytest.raises(ExaminationError, match=r"m version 3 does not record the sentences"):
        examine(state, registry, candidate, [add(None)], *arguments)
