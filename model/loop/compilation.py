"""`torch.compile` of the stacks that take the time, and how many graphs it made.

One graph per shape (`dynamic=False`): with static shapes that is a few, compiled in the first epoch. The recurrent
duration predictor, the alignment search and the losses stay eager: they gain nothing, and break graphs. The compiler is
imported only by runs that use it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from model.acoustic.model import AcousticModel

MOST_GRAPHS = 64
"""Graphs per function before the compiler gives up on it: well above any number of shape buckets."""


def compile_stacks(model: AcousticModel) -> None:
    """Compile encoder and decoder in place; names of parameters stay as they are."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    for stack in (model.encoder, model.decoder):
        stack.compile(dynamic=False)


def compiled_graphs() -> int:
    """Graphs that this process has compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def without_compiling() -> AbstractContextManager:
    """Validation inside runs eagerly: its many shapes come once each and are not worth a graph."""
    return torch.compiler.set_stance("force_eager")
