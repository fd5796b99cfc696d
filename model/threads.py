"""What torch may use of this machine: threads, bfloat16, and a step that an interrupt does not tear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_threaded() -> Iterator[None]:
    """One torch thread inside: where other processes use the cores, a second one waits more than it works."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_threads(processes: int = 1) -> int:
    """All physical cores but one, shared by the `processes` that train here.

    Threads that compute together wait for each other in a busy loop, so when anything else wants a core (tracking, a
    second job) the whole step waits. On two cores: 0.35 s a step with two threads and nothing beside, 0.48 s with one;
    with one other busy process, seconds with two and 0.52 s with one.
    """
    return max(1, (torch.cpu.get_capabilities().get("num_physical_cores", 2) - 1) // processes)


def computes_in_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; where it only emulates it, mixed precision would be slower."""
    return torch.cpu.get_capabilities().get("avx512_bf16", False)
