"""A run without doubles whose training is interrupted twice, as from a keyboard."""

import re
import signal
import subprocess

import pytest
from toy_run import ROOT, command, environment, living, newest, wait_until

from components.state import State

pytestmark = pytest.mark.slow  # two runs up to their training; test_local.py interrupts stand-ins of all steps


def trained_steps(state: State, beyond: int = 0) -> int:
    logs = sorted(state.runs.glob("run-*/log.txt"))
    progress = r'"step": "train", "state": "progress", "done": (\d+)'
    found = re.findall(progress, logs[-1].read_text()) if logs else []
    return int(found[-1]) if found and int(found[-1]) > beyond else 0


def test_an_interrupted_training_leaves_no_process_and_is_resumed(tmp_path):
    state = State(tmp_path / "state")
    reached = 0
    for program, before in ((("run",), "done"), (("pipeline", "run"), "cached")):
        already = len(list(state.runs.glob("run-*")))
        long = {"training__max_steps": 100000, "training__evaluation_interval": 50000, "launch__launcher": "torchrun"}
        process = subprocess.Popen(
            command(*program, **long),
            cwd=ROOT,
            env=environment(state),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda already=already: len(list(state.runs.glob("run-*"))) > already)
        wait_until(lambda reached=reached: trained_steps(state, beyond=reached))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        wait_until(lambda: not living(state))  # at most a moment later
        record = newest(state)
        assert (record.state, record.steps["train"].state) == ("interrupted", "interrupted")
        assert {record.steps[name].state for name in ("resolve_data", "preprocess")} == {before}
        start = int(re.search(r"steps (\d+) to 100000", (record.folder / "log.txt").read_text()).group(1))
        assert (start > 0) == (before == "cached")
        assert start >= reached
        reached = trained_steps(state)
