"""A study without doubles, whose workers train on generated speech, and a training with its best settings."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import yaml
from toy_run import NAME, ROOT, command, environment, living, newest, wait_until

from components.state import State

pytestmark = pytest.mark.slow  # each worker and step is a process that imports everything

STUDY = {"study__max_steps": 3, "study__min_alignment_sharpness": 0, "study__sampler": "random"}
TRIALS = 12


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> State:
    return State(tmp_path_factory.mktemp("study") / "state")


@pytest.fixture
def ask(state, ask_about) -> Callable[..., Any]:
    """Returns a function from arguments of `myxtts`, run in this process on the state of the study, to its JSON."""
    return ask_about(state)


def run(state: State, arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=environment(state))


@pytest.fixture(scope="module")
def studied(state) -> subprocess.CompletedProcess:
    """A study of two trials in two workers, and a training with the best settings."""
    arguments = ("study", "run", "small", "--trials", "2", "--workers", "2", "--then-train")
    return run(state, command(*arguments, **STUDY))


def test_a_studys_values_reach_the_real_trainer_and_its_best_ones_the_training_that_follows(
    studied, state, ask, myxtts
):
    assert studied.returncode == 0, studied.stdout + studied.stderr
    shown = ask("study", "show", "small")
    assert [trial["trial"] for trial in shown["trials"]] == [0, 1]
    baseline = shown["trials"][0]
    voice = state.root / "studies" / "small" / "trial-0" / "voice" / "voice.json"
    trained = json.loads(voice.read_text())["trained_with"]
    assert baseline["settings"]["loss.mel_loss_weight"] == trained["loss"]["mel_loss_weight"]
    assert baseline["settings"]["training.batch_size"] == trained["training"]["batch_size"]
    assert trained["training"]["max_steps"] == 12  # 3 steps of the largest batch (16) in batches of 4
    # The version names study and trial.
    tags = ask("registry", "show", NAME)["tags"]
    _, text, _ = myxtts("study", "best", "small")
    page = (state.root / "studies" / "small" / "study.html").read_text()
    assert "<h1>Study small</h1>" in page
    assert tags["optuna.study"] == "small"
    assert text.startswith(f"# Study small, trial {tags['optuna.trial']}: mel ")
    assert yaml.safe_load(text)["training"]["batch_size"] in range(2, 17)
    assert newest(state).steps["gate"].state == "done"
    # The study is resumed by its name alone.
    resumed = run(state, [sys.executable, "-m", "pipelines.cli.main", "study", "run", "small", "--trials", "3"])
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    listed = ask("study", "list")
    assert [(item["name"], item["trials"], item["finished"]) for item in listed] == [("small", 3, 3)]
    assert ask("study", "status", "small")["steps"]["study_worker"]["state"] == "done"


def trials(ask, name: str) -> list[dict[str, Any]]:
    """What a trial is: its number, settings, state, value and steps."""
    kept = ("trial", "settings", "state", "values", "steps")
    return [{key: trial[key] for key in kept} for trial in ask("study", "show", name)["trials"]]


@pytest.mark.timeout(1200)  # three studies
@pytest.mark.parametrize("target", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_a_study_interrupted_twice_ends_as_an_uninterrupted_one(request, state, ask, target):
    """By Ctrl-C, and by the death of all its processes, those in containers included."""
    if target == "docker":
        request.getfixturevalue("engine")
    at_once, interrupted = f"{target}-at-once", f"{target}-interrupted"

    def study(name: str) -> list[str]:
        arguments = ("study", "run", name, "--target", target, "--trials", str(TRIALS), "--workers", "2")
        return command(*arguments, **STUDY)

    def begun() -> int:
        listed = [item for item in ask("study", "list") if item["name"] == interrupted]
        return sum(bool(trial["steps"]) for trial in trials(ask, interrupted)) if listed else 0

    def interrupt(after: int, end: Callable[[subprocess.Popen], None]) -> None:
        process = subprocess.Popen(
            study(interrupted),
            cwd=ROOT,
            env=environment(state),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: begun() >= after, 600)  # workers in new containers compile for minutes
        end(process)
        process.wait(120)
        wait_until(lambda: not living(state))  # at most a moment later

    def kill(process: subprocess.Popen) -> None:
        process.kill()  # first, so that it starts nothing any more
        process.wait()
        for number in living(state):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        wait_until(lambda: not living(state))

    whole = run(state, study(at_once))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    interrupt(2, lambda process: process.send_signal(signal.SIGINT))
    interrupt(6, kill)
    end = run(state, study(interrupted))
    assert end.returncode == 0, end.stdout + end.stderr
    assert len(trials(ask, interrupted)) == TRIALS
    assert trials(ask, interrupted) == trials(ask, at_once)
    assert {trial["state"] for trial in trials(ask, at_once)} == {"complete", "pruned"}
