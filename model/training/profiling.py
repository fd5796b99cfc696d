"""Timing of the phases of a step: cheap at every step, exact on a GPU for the steps of `--profile-steps`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("data", "transfer", "forward", "backward", "optimizer", "logging")
"""Waiting for the loader; copying to the device; forward pass and losses; backward pass; clipping, update and moving
average; logging without validation."""
WARM_UP = 3
"""Steps before a profile starts, in which first shapes, caches and kernels take extra time."""


class StepTimer:
    """Measures the seconds per phase of a step.

    Args:
        device: Device of the model. A GPU works asynchronously; a profile synchronizes with it after each phase.
        profile_steps: Number of steps to profile so; 0 measures the host only.
    """

    def __init__(self, device: torch.device, profile_steps: int = 0) -> None:
        self.device = device
        self.profile_steps = profile_steps
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._steps = 0
        self._started = time.perf_counter()
        self._profile: list[dict[str, float]] = []
        self._at_step_start: dict[str, float] = {}
        self._profiled = 0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Adds the duration of the block to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._profiling and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds[phase] += time.perf_counter() - started

    @property
    def _profiling(self) -> bool:
        return self.profile_steps > 0 and self._profiled < WARM_UP + self.profile_steps

    def step_done(self) -> bool:
        """Counts a step; returns True when it completes the profile."""
        self._steps += 1
        if not self._profiling:
            return False
        if self._profiled >= WARM_UP:
            before = self._at_step_start
            self._profile.append({phase: seconds - before[phase] for phase, seconds in self._seconds.items()})
        self._at_step_start = dict(self._seconds)
        self._profiled += 1
        return len(self._profile) == self.profile_steps

    def lap(self) -> dict[str, float]:
        """Returns `time/step_ms` and `time/<phase>_share` since the last lap, and starts a new lap."""
        elapsed = time.perf_counter() - self._started
        values = {f"time/{phase}_share": seconds / elapsed for phase, seconds in self._seconds.items()}
        values["time/step_ms"] = 1000 * elapsed / max(self._steps, 1)
        self.restart()
        return values

    def restart(self) -> None:
        """Starts a new lap, so that the time since the last one (a validation) is not attributed to any step."""
        self._at_step_start = {phase: before - self._seconds[phase] for phase, before in self._at_step_start.items()}
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._steps = 0
        self._started = time.perf_counter()

    def profile(self) -> dict[str, float]:
        """Returns `profile/<phase>_ms`, the mean over the profiled steps."""
        count = len(self._profile)
        return {f"profile/{phase}_ms": 1000 * sum(step[phase] for step in self._profile) / count for phase in PHASES}


def profile_table(profile: dict[str, float]) -> str:
    """Returns a profile as a table of milliseconds and share per phase."""
    total = sum(profile.values())
    lines = [f"{'phase':10} {'ms':>9} {'share':>7}"]
    for phase in PHASES:
        milliseconds = profile[f"profile/{phase}_ms"]
        lines.append(f"{phase:10} {milliseconds:9.2f} {100 * milliseconds / total:6.1f}%")
    return "\n".join([*lines, f"{'step':10} {total:9.2f} {100:6.1f}%"])
