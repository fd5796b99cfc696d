"""A process saves and ends within seconds when its parent dies, and logs which process died."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components import process_chain
from components.process_chain import end_with_process
from components.process_identity import ProcessStatus, process_status, this_process

ROOT = str(Path(__file__).parents[2])
CHILD = """
import logging, signal, sys, time
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from components import process_chain
process_chain.POLL_SECONDS = 0.05
def save(*_):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
process_chain.end_with_parent("the step's shell")
print("working", flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(600)
"""


def test_a_child_saves_and_ends_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout.readline() == "working\n"
    parent.kill()
    parent.wait()
    rest = parent.stdout.read()  # ends when the child does, which holds the other end
    assert f"the step's shell (process {parent.pid}) has died" in rest
    assert rest.endswith("saved\n")
    parent.stdout.close()


@pytest.fixture
def other() -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", "from components.process_identity import *; print(this_process(), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    process.identity = process.stdout.readline().strip()
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_worker_stops_when_the_process_of_its_step_is_killed(other, monkeypatch):
    monkeypatch.setattr(process_chain, "POLL_SECONDS", 0.02)
    stopped = threading.Event()
    end_with_process(other.identity, f"step {other.pid}", stopped.set)
    assert not stopped.wait(0.2)
    other.kill()
    assert stopped.wait(60)


def test_a_process_is_known_to_run_or_to_have_ended(other):
    assert process_status(this_process()) is ProcessStatus.RUNNING
    assert process_status(other.identity) is ProcessStatus.RUNNING
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert process_status(other.identity) is ProcessStatus.ENDED  # dead, though nobody has asked for its status
    other.wait()
    assert process_status(other.identity) is ProcessStatus.ENDED


def test_a_later_process_with_the_same_number_is_another(other):
    place, pid, started = other.identity.split()
    assert process_status(f"{place} {pid} {int(started) - 1}") is ProcessStatus.ENDED


@pytest.mark.parametrize("identity", ["", "nonsense", "another-boot/pid:[1] 17 300", "a b c d"])
def test_what_this_process_cannot_see_is_unknown(identity):
    assert process_status(identity) is ProcessStatus.UNKNOWN


def test_a_process_that_does_not_end_is_ended(monkeypatch):
    ended = []
    monkeypatch.setattr(process_chain.os, "kill", lambda pid, number: ended.append((pid, number)))
    monkeypatch.setattr(process_chain.os, "_exit", lambda status: ended.append(status))
    monkeypatch.setattr(process_chain.time, "sleep", lambda seconds: ended.append(seconds))
    process_chain._stop()
    assert ended == [(os.getpid(), signal.SIGTERM), process_chain.SAVE_SECONDS, 1]
