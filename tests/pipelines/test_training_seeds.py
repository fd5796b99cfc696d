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
def decisions(state) -> list[dict[str, Any]]:
    """Decisions about the voices of three seeds."""
    return [run(state, seed=seed) for seed in (1, 2, 3)]


def unseen(metrics: dict[str, Any]) -> set[str]:
    return {clip["sentence"] for clip in metrics["clips"] if clip["part"] == "unseen"}


def test_the_voices_of_three_seeds_are_judged_on_the_same_sentences(state, decisions):
    assert [decision["version"] for decision in decisions] == ["1", "2", "3"]  # three different voices
    [examined] = {decision["examination"]["hash"] for decision in decisions}
    for decision in decisions:
        assert examined in Path(decision["page"]).read_text("utf-8")
        assert examined in (Path(decision["evaluation"]) / "report.html").read_text("utf-8")
    for decision in decisions[1:]:
        candidate, champion = (read_json(Path(folder) / "metrics.json") for folder in decision["examined"].values())
        assert unseen(candidate) == unseen(champion) != set()


def test_no_voice_is_judged_on_a_sentence_that_it_or_the_other_was_trained_on(state, decisions):
    """Other sentences are held out of the next training, on most of which the champion was trained."""
    decision = run(state, seed=4, split__test_share=0.5)
    registry = Registry(state)
    numbers = (decision["version"], decision["champion_before"])
    trained = [read_training_sentences(registry.voice_folder(f"models:/{NAME}/{number}")) for number in numbers]
    candidate, champion = (read_json(Path(folder) / "metrics.json") for folder in decision["examined"].values())
    assert "a voice that it is compared with was trained on the sentence" in candidate["left_out"]
    assert unseen(candidate) == unseen(champion) != set()
    assert not unseen(candidate) & (trained[0] | trained[1])
