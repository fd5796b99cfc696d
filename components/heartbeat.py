"""Heartbeat file that a training step updates on the shared volume, so that its workers end when the step is killed.

Workers are separate processes or pods, which are not notified when the step is killed. They watch for changes of the
file's content by their own clock, since the clocks of nodes differ.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from model.files import write_text

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
SILENCE_SECONDS = 300.0
"""Longest silence; longer than a retried step needs to start again (pause, scheduling, image)."""


@contextlib.contextmanager
def beating(path: Path) -> Iterator[None]:
    """Updates a heartbeat file every `BEAT_SECONDS` while the block runs, then removes it.

    Args:
        path: The file, on a volume that the workers can read.
    """
    ended = threading.Event()
    path.parent.mkdir(parents=True, exist_ok=True)
    _beat(path)

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                _beat(path)
            except OSError as error:  # a full or restarting volume: the workers tolerate some silence
                logger.warning("%s cannot be written: %s", path, error)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def stop_without(path: Path, stop: Callable[[], None] | None = None) -> threading.Thread:
    """Starts a thread of a worker that watches the step's heartbeat.

    Args:
        path: The step's heartbeat file.
        stop: Called once when the file is gone or has not changed for `SILENCE_SECONDS`. By default the process gets
            SIGTERM, on which training saves a checkpoint between two steps.
    """
    thread = threading.Thread(target=_watch, args=(path, stop or _terminate), name="heartbeat-watch", daemon=True)
    thread.start()
    return thread


def _watch(path: Path, stop: Callable[[], None]) -> None:
    last, changed = b"", time.monotonic()
    while True:
        try:
            beat = path.read_bytes()
        except FileNotFoundError:
            logger.error("the step that started this worker has ended; stopping")
            break
        except OSError as error:
            logger.warning("%s cannot be read: %s", path, error)
            beat = last
        if beat != last:
            last, changed = beat, time.monotonic()
        elif time.monotonic() - changed > SILENCE_SECONDS:
            logger.error("no heartbeat of the step that started this worker for %.0f s; stopping", SILENCE_SECONDS)
            break
        time.sleep(BEAT_SECONDS / 2)
    stop()


def _beat(path: Path) -> None:
    write_text(path, str(time.time_ns()))


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
