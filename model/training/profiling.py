"""Where the time of a step goes: measured at every step for next to nothing, exactly for `--profile-steps`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PARTS = ("data", "transfer", "forward", "backward", "optimizer", "logging")
"""Waiting for the loader; copying to the device; forward pass and losses; backward pass; clipping, update and average;
logging, validation left out."""
WARM_UP = 3
"""Steps before a profile begins: first shapes, caches and kernels are not what a run spends its time on."""


class StepTimer:
    """Seconds per part of a step.

    Args:
        device: A GPU works on after a call returns; a profile waits for it after each part.
        profile_steps: Steps to measure so; 0 measures the host's side only.
    """

    def __init__(self, device: torch.device, profile_steps: int = 0) -> None:
        self.device = device
        self.profile_steps = profile_steps
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._steps = 0
        self._started = time.perf_counter()
        self._profile: list[dict[str, float]] = []
        self._step_started: dict[str, float] = {}
        self._seen = 0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._profiling and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds[part] += time.perf_counter() - started

    @property
    def _profiling(self) -> bool:
        return self._seen < WARM_UP + self.profile_steps and self.profile_steps > 0

    def step_done(self) -> bool:
        """Count a step; True when the profile has just become complete."""
        self._steps += 1
        if not self._profiling:
            return False
        if self._seen >= WARM_UP:
            before = self._step_started
            self._profile.append({part: seconds - before[part] for part, seconds in self._seconds.items()})
        self._step_started = dict(self._seconds)
        self._seen += 1
        return len(self._profile) == self.profile_steps

    def lap(self) -> dict[str, float]:
        """`time/step_ms` and the share of each part since the last lap, which starts a new one."""
        elapsed = time.perf_counter() - self._started
        values = {f"time/{part}_share": seconds / elapsed for part, seconds in self._seconds.items()}
        values["time/step_ms"] = 1000 * elapsed / max(self._steps, 1)
        self.restart()
        return values

    def restart(self) -> None:
        """Forget what was measured since the last lap: what is between steps (a validation) is none of theirs."""
        self._step_started = {part: before - self._seconds[part] for part, before in self._step_started.items()}
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._steps = 0
        self._started = time.perf_counter()

    def profile(self) -> dict[str, float]:
        """`profile/<part>_ms`: mean over the profiled steps."""
        count = len(self._profile)
        return {f"profile/{part}_ms": 1000 * sum(step[part] for step in self._profile) / count for part in PARTS}


def profile_table(profile: dict[str, float]) -> str:
    """A profile for reading: milliseconds and share of each part."""
    total = sum(profile.values())
    lines = [f"{'part':10} {'ms':>9} {'share':>7}"]
    for part in PARTS:
        milliseconds = profile[f"profile/{part}_ms"]
        lines.append(f"{part:10} {milliseconds:9.2f} {100 * milliseconds / total:6.1f}%")
    return "\n".join([*lines, f"{'step':10} {total:9.2f} {100:6.1f}%"])
