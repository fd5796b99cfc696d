"""Checkpoints: safetensors + JSON in one folder per step, written whole or not at all; last and best are kept.

A folder holds `model`, `ema` and `optimizer` tensors and `state.json`: step, score, checksums, and the small state of
everything else. Loading never unpickles. The newest folder is the last checkpoint; scores tell the best ones, so no
index can go stale.

A kill at any moment leaves every earlier checkpoint as it was: a folder gets its name only when all its bytes are on
disk, and nothing is removed before that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import MyXTTSError

log = logging.getLogger(__name__)


STATE = "state.json"


FORMAT = 2
"""Raised when old checkpoints can no longer be read; 1 lacked checksums and the state of guards and scaler."""


class CheckpointError(MyXTTSError):
    """A checkpoint is missing, damaged or of another run; the message names it and the cure."""


@dataclass
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped.

    Attributes:
        step: Optimiser steps done.
        model, ema: Parameter name -> tensor.
        optimizer: The optimiser's `state_dict()`.
        rng: Name of a generator -> its states, one row per process (uint8).
        extra: JSON data: sampler position, guards, adaptive weights, scaler, settings hash.
        score: Validation measure, lower is better; None when this step was not validated.
        healthy: Whether a run may go back to it: its last steps were good ones.
    """

    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: dict[str, Tensor]
    extra: dict[str, Any]
    score: float | None = None
    healthy: bool = True


@dataclass(frozen=True)
class Saved:
    """What is known of a checkpoint without loading it."""

    step: int
    score: float | None
    path: Path
    healthy: bool


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep_top_k: int) -> Path:
    """Write `folder/step-<n>/` in one move, then remove what is neither last, nor the last healthy, nor among the
    `keep_top_k` best.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{checkpoint.step:08d}"
    for leftover in folder.glob(".partial-*"):  # of a process that was killed while it wrote
        shutil.rmtree(leftover)
    partial = folder / f".partial-{checkpoint.step:08d}"
    partial.mkdir()
    moments = {
        f"state.{index}.{name}": value
        for index, slots in checkpoint.optimizer["state"].items()
        for name, value in slots.items()
    }
    moments |= {f"rng.{name}": value for name, value in checkpoint.rng.items()}
    checksums = {}
    for name, tensors in (("model", checkpoint.model), ("ema", checkpoint.ema), ("optimizer", moments)):
        path = partial / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        _flush(path)
        checksums[path.name] = _checksum(path)
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "score": checkpoint.score,
        "healthy": checkpoint.healthy,
        "checksums": checksums,
        "param_groups": checkpoint.optimizer["param_groups"],
        "extra": checkpoint.extra,
    }
    (partial / STATE).write_text(json.dumps(state, indent=1), "utf-8")
    _flush(partial / STATE)
    _flush(partial)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    _flush(folder)
    _prune(folder, keep_top_k)
    return final


def list_checkpoints(folder: Path) -> list[Saved]:
    """Every whole checkpoint, oldest first. A folder whose description cannot be read is set aside, with a warning."""
    found = []
    for path in sorted(folder.glob("step-*")):
        try:
            state = json.loads((path / STATE).read_text("utf-8"))
            found.append(Saved(state["step"], state["score"], path, state.get("healthy", True)))
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            _set_aside(path, f"no readable {STATE} ({error})")
    return found


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint with the lowest score, or the last one where none was scored."""
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint here; train first")
    return (*_by_score(found), found[-1])[0].path


def newest_loadable(folder: Path, healthy: bool = False) -> Path | None:
    """The newest checkpoint that is whole; damaged ones on the way are set aside with a warning.

    Args:
        folder: Of the run's checkpoints.
        healthy: Only one to which a run may go back.
    """
    for saved in reversed(list_checkpoints(folder)):
        if healthy and not saved.healthy:
            continue
        try:
            load_checkpoint(saved.path)
            return saved.path
        except DamagedCheckpoint as error:
            _set_aside(saved.path, str(error))
    return None


class DamagedCheckpoint(CheckpointError):
    """Bytes of a checkpoint are missing or changed: the one before may still be good."""


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        DamagedCheckpoint: a file is missing, or not as it was written.
        CheckpointError: the checkpoint is of another format.
    """
    try:
        state = json.loads((path / STATE).read_text("utf-8"))
        if state.get("format", 1) != FORMAT:
            raise CheckpointError(
                f"{path}: checkpoint format {state.get('format', 1)}, this version reads {FORMAT}; "
                "go on with the version that wrote it, or train again in another folder"
            )
        for name, wanted in state["checksums"].items():
            if _checksum(path / name) != wanted:
                raise DamagedCheckpoint(f"{path}: damaged checkpoint ({name} is not as it was written)")
        model, ema, moments = (load_file(path / f"{name}.safetensors") for name in ("model", "ema", "optimizer"))
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise DamagedCheckpoint(f"{path}: damaged checkpoint ({error})") from error
    slots: dict[int, dict[str, Tensor]] = {}
    rng = {}
    for key, value in moments.items():
        kind, _, rest = key.partition(".")
        if kind == "rng":
            rng[rest] = value
        else:
            index, _, name = rest.partition(".")
            slots.setdefault(int(index), {})[name] = value
    optimizer = {"state": slots, "param_groups": state["param_groups"]}
    return Checkpoint(
        state["step"], model, ema, optimizer, rng, state["extra"], state["score"], state.get("healthy", True)
    )


def remove_later(folder: Path, step: int) -> None:
    """Remove the checkpoints past a step: those of steps that a run has gone back behind."""
    for saved in list_checkpoints(folder):
        if saved.step > step:
            shutil.rmtree(saved.path)


def _prune(folder: Path, keep_top_k: int) -> None:
    found = list_checkpoints(folder)
    healthy = [item.path for item in found if item.healthy]
    keep = {found[-1].path, *healthy[-1:], *(item.path for item in _by_score(found)[:keep_top_k])}
    for item in found:
        if item.path not in keep:
            shutil.rmtree(item.path)


def _by_score(found: list[Saved]) -> list[Saved]:
    """Those with a score, the best first; a score that is no number, which nothing is better or worse than, is none."""
    scored = (item for item in found if item.score is not None and math.isfinite(item.score))
    return sorted(scored, key=lambda item: item.score)


def _set_aside(path: Path, reason: str) -> None:
    """Rename what cannot be read, so that nobody takes it for a checkpoint and nothing is lost that could be mended."""
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    log.warning("%s; set aside as %s, going on from the checkpoint before", reason, aside.name)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
