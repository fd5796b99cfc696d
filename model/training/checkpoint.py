"""Checkpoints: safetensors + JSON in one folder per step, written whole or not at all; last and best are kept.

A folder holds `model`, `ema` and `optimizer` tensors and `state.json` (step, score, sampler position, settings hash).
Loading never unpickles. The newest folder is the last checkpoint; scores tell the best ones, so no index can go stale.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

STATE = "state.json"


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or of another run; the message names it and the cure."""


@dataclass
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped.

    Attributes:
        step: Optimiser steps done.
        model, ema: Parameter name -> tensor.
        optimizer: The optimiser's `state_dict()`.
        rng: State of torch's CPU generator (uint8).
        extra: JSON data: sampler position, counters, settings hash.
        score: Validation measure, lower is better; None when this step was not validated.
    """

    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: Tensor
    extra: dict[str, Any]
    score: float | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep_top_k: int) -> Path:
    """Write `folder/step-<n>/` in one move, then remove what is neither last nor among the `keep_top_k` best."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".partial-{checkpoint.step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in checkpoint.model.items()}, partial / "model.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in checkpoint.ema.items()}, partial / "ema.safetensors")
    tensors = {
        f"{index}.{name}": value.contiguous()
        for index, slots in checkpoint.optimizer["state"].items()
        for name, value in slots.items()
    }
    save_file({**tensors, "rng": checkpoint.rng}, partial / "optimizer.safetensors")
    state = {"step": checkpoint.step, "score": checkpoint.score, "extra": checkpoint.extra}
    state["param_groups"] = checkpoint.optimizer["param_groups"]
    with (partial / STATE).open("w", encoding="utf-8") as file:
        json.dump(state, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    _prune(folder, keep_top_k)
    return final


def list_checkpoints(folder: Path) -> list[tuple[int, float | None, Path]]:
    """(step, score, folder) of every whole checkpoint, oldest first."""
    found = []
    for path in sorted(folder.glob("step-*")):
        if (path / STATE).is_file():
            state = json.loads((path / STATE).read_text("utf-8"))
            found.append((state["step"], state["score"], path))
    return found


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint with the lowest score, or the last one where none was scored."""
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint here; train first")
    scored = [item for item in found if item[1] is not None]
    return min(scored, key=lambda item: item[1])[2] if scored else found[-1][2]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        state = json.loads((path / STATE).read_text("utf-8"))
        tensors = load_file(path / "optimizer.safetensors")
        model, ema = load_file(path / "model.safetensors"), load_file(path / "ema.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: damaged checkpoint ({error}); remove this folder to go on from the one before"
        ) from error
    rng = tensors.pop("rng")
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    optimizer = {"state": slots, "param_groups": state["param_groups"]}
    return Checkpoint(state["step"], model, ema, optimizer, rng, state["extra"], state["score"])


def _prune(folder: Path, keep_top_k: int) -> None:
    found = list_checkpoints(folder)
    scored = sorted((item for item in found if item[1] is not None), key=lambda item: item[1])
    keep = {found[-1][2], *(item[2] for item in scored[:keep_top_k])}
    for _, _, path in found:
        if path not in keep:
            shutil.rmtree(path)
