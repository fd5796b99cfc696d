"""Where a run computes and in which precision, decided once and refused with a reason where it cannot be."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from model.config.training import TrainingConfig
from model.errors import MyXTTSError
from model.threads import computes_in_bfloat16

MAX_GRAPHS = 64
"""Graphs per function before the compiler gives up on it: well above any number of shape buckets."""
MEMORY_SHARE = 0.9
"""Of a GPU's memory that an isolated process may take."""


class DeviceError(MyXTTSError):
    """The settings ask for a device that this machine lacks; the message names what there is."""


@dataclass(frozen=True)
class Devices:
    """`model` trains; `data` validates and speaks previews. Often the same."""

    model: torch.device
    data: torch.device


def choose_devices(settings: TrainingConfig, local_rank: int = 0, world: int = 1) -> Devices:
    """Devices that the settings ask for.

    Args:
        settings: `device`, `model_gpu`, `data_gpu`, `enable_memory_isolation`.
        local_rank: Of several processes on this machine each takes the GPU of its number.
        world: Number of processes.

    Raises:
        DeviceError: a GPU is asked for that is not there, or the settings contradict each other.
    """
    count = torch.cuda.device_count()
    numbers = {"model_gpu": settings.model_gpu, "data_gpu": settings.data_gpu}
    asked = {name: number for name, number in numbers.items() if number >= 0}
    there = f"this machine has {count} GPU{'' if count == 1 else 's'}"
    if settings.device == "cpu" and asked:
        raise DeviceError(
            f"training.device is cpu, but training.{next(iter(asked))} asks for a GPU; leave one of the two out"
        )
    for name, number in asked.items():
        if number >= count:
            raise DeviceError(f"training.{name} is {number}, but {there}; give a lower number or leave it out")
    choose_device(settings.device, "training.device")
    if settings.enable_memory_isolation and len(asked) < 2:
        raise DeviceError(
            "training.enable_memory_isolation keeps two GPUs apart: give training.model_gpu and training.data_gpu, "
            f"or leave it out ({there})"
        )
    if world > 1 and settings.model_gpu >= 0:
        raise DeviceError(f"{world} processes take a GPU each by their number; leave training.model_gpu out")
    if world > max(count, 1) and count and settings.device != "cpu":
        raise DeviceError(f"{world} processes want a GPU each, but {there}; start fewer, or set training.device to cpu")

    if settings.device == "cpu" or not count:
        model = torch.device("cpu")
    else:
        model = torch.device("cuda", settings.model_gpu if settings.model_gpu >= 0 else local_rank)
    data = torch.device("cuda", settings.data_gpu) if settings.data_gpu >= 0 else model
    if settings.enable_memory_isolation:
        for device in {model, data}:
            torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE, device)
    return Devices(model, data)


def choose_device(wanted: Literal["auto", "cpu", "cuda"], key: str) -> torch.device:
    """The CPU, or the GPU that a process uses where it is not told which.

    Raises:
        DeviceError: setting `key` asks for a GPU, and there is none.
    """
    there = torch.cuda.device_count() > 0
    if wanted == "cuda" and not there:
        raise DeviceError(f"{key} is cuda, but this machine has 0 GPUs; set it to auto or cpu")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def bfloat16_pays(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; others emulate it, and are slower."""
    return computes_in_bfloat16() if device.type == "cpu" else torch.cuda.is_bf16_supported(False)


def autocast_type(settings: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Type that autocast computes in, or None for float32: mixed precision is off, or does not pay."""
    if not settings.use_mixed_precision:
        return None
    if settings.mixed_precision == "float16":
        return torch.float16
    return torch.bfloat16 if bfloat16_pays(device) else None


def compile_modules(*modules: nn.Module) -> None:
    """Compiles modules in place, one graph per input shape; names of parameters stay as they are.

    With static shapes that is a few graphs, compiled in the first epoch. The compiler is imported only by runs that use
    it.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    for module in modules:
        module.compile(dynamic=False)


def compiled_graphs() -> int:
    """Returns the number of graphs that this process has compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def without_compiling() -> AbstractContextManager:
    """Runs compiled modules eagerly inside: the many shapes of validation come once each and are not worth a graph."""
    return torch.compiler.set_stance("force_eager")
