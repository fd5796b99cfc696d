"""Data-parallel training in several processes: the process group, its collective operations, and gradient averaging.

Processes are started by `torchrun`, which sets RANK, WORLD_SIZE and LOCAL_RANK. Without it there is one process, and
every operation here returns its input.
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


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Process group of a training, as seen by one of its processes.

    Attributes:
        rank: Number of this process, 0 to `world_size` - 1.
        world_size: Number of processes.
        local_rank: Number of this process among those on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process logs, validates and writes checkpoints."""
        return self.rank == 0

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sums a tensor over all processes, in place, and returns it."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def all_gather_tensor(self, values: Tensor) -> Tensor:
        """Gathers a tensor (N,) of every process into (world_size, N)."""
        if self.world_size == 1:
            return values[None]
        rows = [torch.empty_like(values) for _ in range(self.world_size)]
        distributed.all_gather(rows, values)
        return torch.stack(rows)

    def broadcast(self, value: Any) -> Any:
        """Returns the value of the first process, in every process. It is pickled, so it must be a plain object."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process."""
        return flag if self.world_size == 1 else bool(self.all_reduce_sum(torch.tensor(float(flag))) > 0)

    def all_gather(self, items: list[str]) -> list[str]:
        """Returns the lists of all processes, concatenated by rank."""
        if self.world_size == 1:
            return items
        lists: list[Any] = [None] * self.world_size
        distributed.all_gather_object(lists, items)
        return [item for gathered in lists for item in gathered]

    def barrier(self) -> None:
        """Waits until every process has reached this call."""
        if self.world_size > 1:
            distributed.barrier()

    def wrap(self, model: nn.Module, find_unused_parameters: bool) -> nn.Module:
        """Wraps a model so that its gradients are averaged over the processes at the end of a backward pass.

        Only parameters that are trainable now take part: wrap the model again after some were frozen or unfrozen.

        Args:
            model: On its device.
            find_unused_parameters: Whether some steps give some trainable parameters no gradient, so that these must be
                searched for at every step, which takes time.
        """
        if self.world_size == 1:
            return model
        return DistributedDataParallel(model, forward_sync_buffers=False, find_unused_parameters=find_unused_parameters)


def without_averaging(model: nn.Module) -> AbstractContextManager[None]:
    """Skips the averaging of gradients inside the block: for all but the last micro-batch of an accumulated step."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Joins the process group that `torchrun` started (gloo for CPU tensors, NCCL for GPU tensors), and leaves it."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Processes()
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(rank=distributed.get_rank(), world_size=world_size, local_rank=int(os.environ["LOCAL_RANK"]))
        distributed.barrier()  # none leaves while another still receives its last broadcast
    finally:
        distributed.destroy_process_group()
