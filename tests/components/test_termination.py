"""Termination of a step, tested with real processes and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kube_double import KubeDouble

from components.termination import on_termination
from model.config.resolution import resolve
from pipelines.profiles import WORKER_KEYS

STEP = """
import sys
sys.path.insert(0, sys.argv[1])
import types
from pathlib import Path
module = types.ModuleType("components.standin.run")
exec(Path(sys.argv[2]).read_text(), module.__dict__)
sys.modules["components.standin"] = types.ModuleType("components.standin")
sys.modules["components.standin.run"] = module
from components.runner import run_step

class Artifact:
    path, metadata = sys.argv[2] + ".out", {}

if __name__ == "__main__":
    run_step("standin", Artifact())
"""

SOON = 20.0
"""Longest time in seconds until a terminated step has recorded it; its workers sleep three times as long."""

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
from model.loop.interrupts import interruptible

def run():
    with interruptible() as interrupt:
        print("ready", flush=True)
        interrupt.wait(60)
        time.sleep(1.5)
        print("saved", flush=True)
    raise KeyboardInterrupt
"""
TRAINJOB = """
from pathlib import Path
from components.launch import launch

def run():
    print("ready", flush=True)
    launch("standin_worker", {}, Path(__import__("sys").argv[2]).with_name("training"))
"""
WORKER = """
import os, sys, time
from components.launch import worker_main

def work(request):
    open(request["folder"] + "/worker", "w").write(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    worker_main(work)
"""
TORCHRUN = """
from pathlib import Path
from components.launch import launch

def run():
    folder = Path(__import__("sys").argv[2]).parent
    print("ready", flush=True)
    launch("standin_worker", {"folder": str(folder)}, folder / "training")
"""


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts a step with this source of `run`; returns (process, words after `ready`)."""
    started = []

    def begin(work: str, **variables: str) -> tuple[subprocess.Popen, list[str]]:
        (tmp_path / "work.py").write_text(work)
        (tmp_path / "step.py").write_text(STEP)
        root = str(Path(__file__).parents[2])
        command = [sys.executable, str(tmp_path / "step.py"), root, str(tmp_path / "work.py")]
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{root}", **variables}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
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
    assert seconds_until_recorded(process) < SOON
    assert process.wait(60) == 130
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_work_that_saves_itself_is_recorded_before_it_has_saved_and_only_once(start):
    process, _ = start(SAVING)
    assert seconds_until_recorded(process) < SOON
    rest = process.stdout.read()
    assert "saved" in rest
    assert "::step::" not in rest
    assert process.wait(60) == 130


def launched(**changes) -> str:
    config = resolve(overrides={f"launch.{key}": value for key, value in changes.items()}).config
    cluster = config.cluster.model_dump(include=set(WORKER_KEYS))
    return json.dumps({"launch": config.launch.model_dump(), "cluster": cluster})


def wait_until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_step_that_waits_for_a_trainjob_takes_it_along(start, tmp_path):
    kube = KubeDouble("myxtts")
    kube.script = [""]
    with kube.serving(tmp_path) as kubeconfig:
        variables = {"KUBECONFIG": str(kubeconfig), "MYXTTS_IMAGE": "i@sha256:" + "0" * 64, "KFP_RUN_ID": "run-1"}
        process, _ = start(TRAINJOB, MYXTTS_LAUNCH=launched(launcher="trainjob"), **variables)
        wait_until(lambda: kube.jobs)
        assert seconds_until_recorded(process) < SOON
        wait_until(lambda: not kube.jobs)
        assert process.wait(60) == 130
    assert not (tmp_path / "training" / "heartbeat").exists()  # its workers stop even if deleting failed


def test_a_step_that_waits_for_torchrun_ends_its_workers(start, tmp_path):
    (tmp_path / "standin_worker.py").write_text(WORKER)
    process, _ = start(TORCHRUN, MYXTTS_LAUNCH=launched(launcher="torchrun", processes=1))
    wait_until((tmp_path / "worker").is_file)
    wait_until((tmp_path / "worker").read_text)
    worker = Path("/proc") / (tmp_path / "worker").read_text()
    assert worker.exists()
    assert seconds_until_recorded(process) < SOON
    assert process.wait(120) == 130
    assert not worker.exists()


def test_a_step_that_ended_well_leaves_signals_as_they_were():
    before = signal.getsignal(signal.SIGTERM)
    with on_termination(lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1
