"""Ends a process when its parent dies, with every launcher.

A run is a chain of processes: command, KFP's runner, the step's shell, its executor, torchrun, the workers. A signal
may end only one of them; its descendants detect that their parent has died, save their state, and end.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from components.process_identity import ProcessStatus, process_status

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
SAVE_SECONDS = 60.0
"""Time that a process has to save and end after its parent died; then it ends at once."""

_watched: set[str] = set()


def end_with_parent(parent: str, stop: Callable[[], None] | None = None) -> None:
    """Starts a thread that stops this process when its parent dies.

    Polled, because a signal of the kernel (`PR_SET_PDEATHSIG`) would also come when only the parent's thread ends.

    Args:
        parent: Name of the parent for the log, such as `the step's shell`.
        stop: Called once. By default the process gets SIGTERM, on which a training saves a checkpoint, and is ended
            `SAVE_SECONDS` later if it still runs.
    """
    started = os.getppid()
    _watch(f"{parent} (process {started})", lambda: os.getppid() != started, stop or _stop)


def end_with_process(identity: str, name: str, stop: Callable[[], None] | None = None) -> None:
    """Starts a thread that stops this process when another one ends, if that runs on this machine.

    Args:
        identity: As that process's `this_process` returned it.
        name: Its name, for the log.
        stop: As in `end_with_parent`.
    """
    _watch(name, lambda: process_status(identity) is ProcessStatus.ENDED, stop or _stop)


def _watch(name: str, has_ended: Callable[[], bool], stop: Callable[[], None]) -> None:
    if name in _watched:
        return
    _watched.add(name)

    def watch() -> None:
        while not has_ended():
            time.sleep(POLL_SECONDS)
        logger.error("%s has died; process %d, which it started, stops", name, os.getpid())
        stop()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    logger.error("process %d did not end within %.0f s; ending it", os.getpid(), SAVE_SECONDS)
    os._exit(1)
