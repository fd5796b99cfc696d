"""A sign of life that a training step leaves on the shared volume, so that its workers do not outlive it.

Workers are processes or pods of their own: when the step is killed, nobody tells them. They compare what they read with
what they read before, by their own clock, since clocks of nodes differ.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
SILENCE_SECONDS = 300.0
"""Longer than a step that is tried again takes to come back: pause, scheduling, image."""


@contextlib.contextmanager
def beating(path: Path) -> Iterator[None]:
    """Inside, the file changes every `BEAT_SECONDS`; afterwards it is gone.

    Args:
        path: The file, on a volume that the workers see.
    """
    ended = threading.Event()
    path.parent.mkdir(parents=True, exist_ok=True)
    _beat(path)

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                _beat(path)
            except OSError as error:  # a full or restarting volume: the workers bear some silence
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
    """Watch a step's heartbeat from a worker, in a thread.

    Args:
        path: The step's file.
        stop: Called once the file is gone, or has not changed for `SILENCE_SECONDS`; by default the process gets
            SIGTERM, on which training saves itself between two steps.
    """
    thread = threading.Thread(target=_watch, args=(path, stop or _terminate), name="heartbeat-watch", daemon=True)
    thread.start()
    return thread


def _watch(path: Path, stop: Callable[[], None]) -> None:
    last, heard = b"", time.monotonic()
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
            last, heard = beat, time.monotonic()
        elif time.monotonic() - heard > SILENCE_SECONDS:
            logger.error("no heartbeat of the step that started this worker for %.0f s; stopping", SILENCE_SECONDS)
            break
        time.sleep(BEAT_SECONDS / 2)
    stop()


def _beat(path: Path) -> None:
    """Write in one move: a reader never finds the file missing or torn."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(str(time.time_ns()), "ascii")
    os.replace(partial, path)


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
