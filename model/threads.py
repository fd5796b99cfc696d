"""Torch's use of the processor: number of threads, kernels, and native bfloat16."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

KERNELS = 16384
"""Kernels that oneDNN keeps. A shape of the tiny model's batches has some thirty (`ONEDNN_VERBOSE=profile_create`)."""


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limits torch to one thread inside the block, where other processes occupy the remaining cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_threads(processes: int = 1) -> int:
    """Returns the number of threads per training process: all physical cores but one, divided by `processes`.

    Threads that compute together wait for each other in a busy loop, so when anything else needs a core (tracking, a
    second job) the whole step waits (docs/measurements/README.md).
    """
    return max(1, (torch.cpu.get_capabilities().get("num_physical_cores", 2) - 1) // processes)


def keep_compiled_kernels() -> None:
    """Lets oneDNN keep the kernels that it compiles for the shapes of a training.

    By default it keeps 1024 of them, those of some thirty shapes, and compiles the others again. It reads the limit
    once, so that this has no effect after oneDNN was used in this process.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))


def computes_in_bfloat16() -> bool:
    """Returns whether this processor multiplies in bfloat16; emulating it would make mixed precision slower."""
    return torch.cpu.get_capabilities().get("avx512_bf16", False)
