"""Choice of devices and precision, with errors that say why settings cannot be met, and compilation."""

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
"""Limit of compiled graphs per function, well above any number of shape buckets; the compiler's own default is 8."""
MEMORY_FRACTION = 0.9
"""Fraction of a GPU's memory that a process may allocate under `enable_memory_isolation`."""


class DeviceError(MyXTTSError):
    """The settings require a device that this machine lacks; the message names the devices that it has."""


@dataclass(frozen=True)
class Devices:
    """Devices of a run: `model` trains, `data` validates and synthesizes previews. They may be the same."""

    model: torch.device
    data: torch.device


def choose_devices(settings: TrainingConfig, local_rank: int = 0, world_size: int = 1) -> Devices:
    """Returns the devices that the settings require.

    Args:
        settings: `device`, `model_gpu`, `data_gpu`, `enable_memory_isolation`.
        local_rank: Number of this process among those on this machine; each uses the GPU of the same number.
        world_size: Number of processes.

    Raises:
        DeviceError: the machine lacks a GPU that is requested, or the settings contradict each other.
    """
    count = torch.cuda.device_count()
    numbers = {"model_gpu": settings.model_gpu, "data_gpu": settings.data_gpu}
    requested = {name: number for name, number in numbers.items() if number >= 0}
    available = f"this machine has {count} GPU{'' if count == 1 else 's'}"
    if settings.device == "cpu" and requested:
        raise DeviceError(
            f"training.device is cpu, but training.{next(iter(requested))} requires a GPU; leave one of the two out"
        )
    for name, number in requested.items():
        if number >= count:
            raise DeviceError(f"training.{name} is {number}, but {available}; give a lower number or leave it out")
    choose_device(settings.device, "training.device")
    if settings.enable_memory_isolation and len(requested) < 2:
        raise DeviceError(
            "training.enable_memory_isolation keeps two GPUs apart: give training.model_gpu and training.data_gpu, "
            f"or leave it out ({available})"
        )
    if world_size > 1 and settings.model_gpu >= 0:
        raise DeviceError(f"{world_size} processes use the GPUs of their local ranks; leave training.model_gpu out")
    if world_size > max(count, 1) and count and settings.device != "cpu":
        raise DeviceError(
            f"{world_size} processes need a GPU each, but {available}; start fewer, or set training.device to cpu"
        )

    if settings.device == "cpu" or not count:
        model = torch.device("cpu")
    else:
        model = torch.device("cuda", settings.model_gpu if settings.model_gpu >= 0 else local_rank)
    data = torch.device("cuda", settings.data_gpu) if settings.data_gpu >= 0 else model
    if settings.enable_memory_isolation:
        for device in {model, data}:
            torch.cuda.set_per_process_memory_fraction(MEMORY_FRACTION, device)
    return Devices(model, data)


def choose_device(wanted: Literal["auto", "cpu", "cuda"], key: str) -> torch.device:
    """Returns the CPU, or the default GPU of this process.

    Raises:
        DeviceError: setting `key` requires a GPU, and there is none.
    """
    has_gpu = torch.cuda.device_count() > 0
    if wanted == "cuda" and not has_gpu:
        raise DeviceError(f"{key} is cuda, but this machine has 0 GPUs; set it to auto or cpu")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


def has_native_bfloat16(device: torch.device) -> bool:
    """Returns whether the device computes in bfloat16; others emulate it, which is slower than float32."""
    return computes_in_bfloat16() if device.type == "cpu" else torch.cuda.is_bf16_supported(False)


def autocast_type(settings: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Returns the type that autocast computes in, or None for float32, where mixed precision is off or emulated."""
    if not settings.use_mixed_precision:
        return None
    if settings.mixed_precision == "float16":
        return torch.float16
    return torch.bfloat16 if has_native_bfloat16(device) else None


def compile_modules(*modules: nn.Module) -> None:
    """Compiles modules in place, one graph per input shape; the names of parameters stay the same.

    With static shapes there are a few graphs, compiled in the first epoch.
    """
    import torch._dynamo  # slow to import, and needed here only

    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    for module in modules:
        module.compile(dynamic=False)


def compiled_graphs() -> int:
    """Returns the number of graphs that this process has compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def without_compiling() -> AbstractContextManager[None]:
    """Runs compiled modules eagerly inside the block: validation has many shapes, each used once."""
    return torch.compiler.set_stance("force_eager")
