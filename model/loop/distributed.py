"""Several processes training one model: who this one is, and what they tell each other each step.

Started by `torchrun`, which sets RANK, WORLD_SIZE and LOCAL_RANK; without it there is one process, and every function
here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """The group that trains together, seen from one of its members."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process logs, validates and writes checkpoints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all processes, in place."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def all_gather_tensor(self, values: Tensor) -> Tensor:
        """(N,) of each process -> (world, N)."""
        if self.world == 1:
            return values[None]
        rows = [torch.empty_like(values) for _ in range(self.world)]
        distributed.all_gather(rows, values)
        return torch.stack(rows)

    def broadcast(self, value: Any) -> Any:
        """What the first process passes in, at every process."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set at any process."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor(float(flag))) > 0)

    def all_gather(self, items: list[str]) -> list[str]:
        """The lists of all processes as one."""
        if self.world == 1:
            return items
        lists: list[Any] = [None] * self.world
        distributed.all_gather_object(lists, items)
        return [item for part in lists for item in part]

    def barrier(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            distributed.barrier()

    def wrap(self, model: nn.Module, partial: bool) -> nn.Module:
        """The model with gradients averaged over the processes at the end of a backward pass.

        Args:
            model: On its device.
            partial: Some steps give some parameters no gradient: which ones is found out at each step.
        """
        if self.world == 1:
            return model
        resting = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        for parameter in resting:  # only what may learn now is averaged later, and a run that goes back may wake these
            parameter.requires_grad_(True)
        wrapped = DistributedDataParallel(model, forward_sync_buffers=False, find_unused_parameters=partial)
        for parameter in resting:
            parameter.requires_grad_(False)
        return wrapped


def without_averaging(model: nn.Module) -> AbstractContextManager:
    """Passes inside, forward and backward, keep their gradients: for all but the last part of an accumulated step."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the group that `torchrun` started (gloo for what is on CPUs, NCCL on GPUs), and leave it at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes()
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(distributed.get_rank(), world, int(os.environ["LOCAL_RANK"]))
        distributed.barrier()  # none leaves while another still reads what it was told
    finally:
        distributed.destroy_process_group()
