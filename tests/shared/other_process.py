"""A second process that works on the state of a test."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from components.registry import Registry
from components.state import State
sys.stdin.readline()
{action}
"""
WAITING = "waiting for another process"


class OtherProcess:
    """Second process, which runs an action when `meet` is called.

    `meet` returns once that process waits for a lock of this one, or has ended.

    Args:
        action: Python statements, with `Registry` and `State` imported.
    """

    def __init__(self, action: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(action=action)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def meet(self) -> None:
        self._process.stdin.close()
        for line in self._process.stderr:
            self.lines.append(line)
            if WAITING in line:
                return

    @property
    def waited(self) -> bool:
        return any(WAITING in line for line in self.lines)

    def finish(self) -> int:
        """Waits for the process and returns its exit status."""
        self.lines += self._process.stderr
        self._process.stderr.close()
        return self._process.wait()
