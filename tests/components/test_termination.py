"""A step that is told to end: with real processes and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.termination import on_termination

STEP = """
import sys
sys.path.insert(0, sys.argv[1])
import types
from pathlib import Path
module = types.ModuleType("components.standin.run")
exec(Path(sys.argv[2]).read_text(), module.__dict__)
sys.modules["components.standin"] = types.ModuleType("components.standin")
sys.modules["components.standin.run"] = module
from components.step import run_step

class Artifact:
    path, metadata = sys.argv[2] + ".out", {}

if __name__ == "__main__":
    run_step("standin", Artifact())
"""

POOL = """
import multiprocessing, time

def run():
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=time.sleep, args=(60,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    print("ready", *(worker.pid for worker in workers), flush=True)
    for worker in workers:
        worker.join()
"""
SAVING = """
import time
from model.threads import interruptible

def run():
    with interruptible() as told:
        print("ready", flush=True)
        told.wait(60)
        time.sleep(1.5)
        print("saved", flush=True)
    raise KeyboardInterrupt
"""


@pytest.fixture
def start(tmp_path):
    """Starts a step whose work is this text; yields (process, words after `ready`)."""
    started = []

    def begin(work: str) -> tuple[subprocess.Popen, list[str]]:
        (tmp_path / "work.py").write_text(work)
        (tmp_path / "step.py").write_text(STEP)
        root = str(Path(__file__).parents[2])
        command = [sys.executable, str(tmp_path / "step.py"), root, str(tmp_path / "work.py")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})
        started.append(process)
        while not (line := process.stdout.readline()).startswith("ready"):
            assert line, "the step ended before it was ready"
        return process, line.split()[1:]

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def seconds_until_recorded(process: subprocess.Popen) -> float:
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    while not (line := process.stdout.readline()).startswith("::step::"):
        assert line, "nothing was recorded"
    assert json.loads(line.partition(" ")[2])["state"] == "interrupted"
    return time.monotonic() - began


def test_a_step_that_waits_for_its_workers_records_and_ends_them(start):
    process, workers = start(POOL)
    assert len(workers) == 2
    assert seconds_until_recorded(process) < 1
    assert process.wait(10) == 130
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_work_that_saves_itself_is_recorded_before_it_has_saved_and_only_once(start):
    process, _ = start(SAVING)
    assert seconds_until_recorded(process) < 1
    rest = process.stdout.read()
    assert "saved" in rest
    assert "::step::" not in rest
    assert process.wait(10) == 130


def test_a_step_that_ended_well_leaves_signals_as_they_were():
    before = signal.getsignal(signal.SIGTERM)
    with on_termination(lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1
