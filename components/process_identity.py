"""Identity of a process across machines, by which another process finds out whether it still runs."""

import os
from enum import Enum
from functools import cache
from pathlib import Path

PROC = Path("/proc")
BOOT_ID = PROC / "sys" / "kernel" / "random" / "boot_id"


class ProcessStatus(Enum):
    """Status of a process, as seen from this one."""

    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"
    """The process was started on another machine or in another container, so its status cannot be read here."""


def this_process() -> str:
    """Returns the identity of this process: machine, PID namespace, PID and start time."""
    return f"{_place()} {os.getpid()} {_started(os.getpid())}"


def process_status(identity: str) -> ProcessStatus:
    """Returns the status of the process with this identity, as its `this_process` returned it."""
    place, _, rest = identity.partition(" ")
    pid, _, started = rest.partition(" ")
    if place != _place() or not pid.isdecimal():
        return ProcessStatus.UNKNOWN
    return ProcessStatus.RUNNING if started and started == _started(int(pid)) else ProcessStatus.ENDED


@cache
def _place() -> str:
    """Returns the scope in which PIDs are unique: the boot of a machine and a PID namespace."""
    return f"{BOOT_ID.read_text().strip()}/{os.readlink(PROC / 'self' / 'ns' / 'pid')}"


def _started(pid: int) -> str:
    """Returns the start time of a process in clock ticks since boot; '' if it has ended."""
    try:
        # The name of the program stands in parentheses and may hold anything.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started  # a zombie: its parent has not yet waited for it
