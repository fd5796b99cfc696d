"""Whole runs of one corpus with three training seeds are judged on the same sentences, and never on those they saw."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from toy_run import NAME, ROOT, command, environment

from components.registry import Registry
from components.state import State, read_json
from model.voice_folder import read_training_sentences

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> State:
    return State(tmp_path_factory.mktemp("seeds") / "state")


def run(state: State, **changes) -> dict[str, Any]:
    """Runs the pipeline and returns the report of its gate."""
    done = subprocess.run(
        command("run", **changes), capture_output=True, text=True, cwd=ROOT, env=environment(state), timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return read_json(max(state.root.glob("gates/*/gate.json"), key=lambda path: path.stat().st_mtime_ns))


@pytest.fixture(scope="module")
def first(state) -> dict[str, Any]:
    return run(state, seed=1)


@pytest.fixture(scope="module")
def second(first, state) -> dict[str, Any]:
    return run(state, seed=2)


@pytest.fixture(scope="module")
def third(second, state) -> dict[str, Any]:
    return run(state, seed=3)


def unseen(metrics: dict[str, Any]) -> set[str]:
    """Returns the hashes of the unseen sentences of an evaluation."""
    return {clip["sentence"] for clip in metrics["clips"] if clip["part"] == "unseen"}


def check_shown(decision: dict[str, Any], examined: str) -> None:
    """Asserts that both pages of a decision show the hash of the sentences."""
    assert decision["examination"]["hash"] == examined
    assert examined in Path(decision["page"]).read_text("utf-8")
    assert examined in (Path(decision["evaluation"]) / "report.html").read_text("utf-8")


def examined_metrics(decision: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the evaluations of the candidate and of the champion that a decision rests on."""
    return [read_json(Path(decision["examined"][voice]) / "metrics.json") for voice in ("candidate", "champion")]


def test_the_first_voice_is_judged_on_sentences_whose_hash_is_shown(first):
    assert first["champion"] == first["version"] == "1"
    check_shown(first, first["examination"]["hash"])


@pytest.mark.parametrize("seed", ["second", "third"])
def test_another_seed_gives_another_voice_that_is_judged_on_the_same_sentences(first, seed, request):
    decision = request.getfixturevalue(seed)
    assert decision["champion"] == decision["version"] == {"second": "2", "third": "3"}[seed]
    check_shown(decision, first["examination"]["hash"])
    candidate, champion = examined_metrics(decision)
    assert unseen(candidate) == unseen(champion) != set()


def test_no_voice_is_judged_on_a_sentence_that_it_or_the_other_was_trained_on(state, third, monkeypatch):
    """Other sentences are held out of the next training, on most of which the champion was trained."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it where a test uses it in this process
    decision = run(state, seed=4, split__test_share=0.5)
    registry = Registry(state)
    numbers = (decision["version"], decision["champion_before"])
    trained = [read_training_sentences(registry.voice_folder(f"models:/{NAME}/{number}")) for number in numbers]
    candidate, champion = examined_metrics(decision)
    assert "a voice that it is compared with was trained on the sentence" in candidate["left_out"]
    assert unseen(candidate) == unseen(champion) != set()
    assert not unseen(candidate) & (trained[0] | trained[1])
