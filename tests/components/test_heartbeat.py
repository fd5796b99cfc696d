"""Workers end when the heartbeat of the step that started them stops."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components import heartbeat
from components.heartbeat import beating, stop_without

ROOT = str(Path(__file__).parents[2])
STEP = """
import sys, time
from pathlib import Path
from components import heartbeat
heartbeat.BEAT_SECONDS = 0.05
with heartbeat.beating(Path(sys.argv[1])):
    print("beating", flush=True)
    time.sleep(60)
"""
WORKER = """
import sys
from pathlib import Path
from components import heartbeat
from model.loop.interrupts import interruptible
heartbeat.BEAT_SECONDS, heartbeat.SILENCE_SECONDS = 0.05, 1.5
with interruptible() as interrupt:
    heartbeat.stop_without(Path(sys.argv[1]))
    print("working", flush=True)
    interrupt.wait(60)
print("saved", flush=True)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "SILENCE_SECONDS", 0.8)


@pytest.fixture
def start():
    """Starts a program and waits for its first line."""
    started = []

    def begin(text: str, path: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", text, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT, stderr=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline()
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_worker_saves_itself_and_ends_once_its_step_was_killed_or_interrupted(start, tmp_path, how):
    step = start(STEP, tmp_path / "heartbeat")
    worker = start(WORKER, tmp_path / "heartbeat")
    with pytest.raises(subprocess.TimeoutExpired):  # longer than the silence that is borne: it listens to the beat
        worker.wait(1.8)
    step.send_signal(how)
    assert worker.wait(60) == 0
    assert worker.stdout.read() == "saved\n"


def test_a_file_that_changes_keeps_a_worker_going_and_one_that_does_not_stops_it(quick, tmp_path):
    path, stopped = tmp_path / "heartbeat", []
    with beating(path):
        watch = stop_without(path, lambda: stopped.append(True))
        watch.join(1.0)
        assert watch.is_alive()
    watch.join(60)
    assert stopped == [True]
    path.write_text("a step that was killed")
    watch = stop_without(path, lambda: stopped.append(True))
    watch.join(0.1)
    assert watch.is_alive()
    watch.join(60)
    assert stopped == [True, True]


def test_the_heartbeat_of_a_retried_step_keeps_workers_running(quick, tmp_path):
    path, stopped = tmp_path / "heartbeat", []
    path.write_text("of the first attempt")
    watch = stop_without(path, lambda: stopped.append(True))
    with beating(path):
        watch.join(1.0)
        assert not stopped
    watch.join(60)
    assert stopped


def test_nothing_is_left_behind(quick, tmp_path):
    with beating(tmp_path / "folder" / "heartbeat"):
        assert (tmp_path / "folder" / "heartbeat").is_file()
    assert not list((tmp_path / "folder").iterdir())
