"""Checkpoints: one folder of safetensors and JSON per saved step, written atomically; the last and the best are kept.

A folder holds the `model`, `ema` and `optimizer` tensors and `state.json`: step, score, checksums, and the small state
of everything else. Loading never unpickles. The step in a folder's name orders the checkpoints and the score in its
`state.json` ranks them, so there is no index that could disagree with the folders.

A kill at any moment leaves every earlier checkpoint intact: a folder gets its name only when all its bytes are on disk,
and nothing is removed before that.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import MyXTTSError
from model.files import atomic_write, read_record, sha256_of_file

log = logging.getLogger(__name__)

STATE = "state.json"
STATE_CHECKSUM = "state.sha256"
"""File with the SHA-256 of `state.json`; checkpoints of older versions have none."""
FORMAT = 3
"""Version of the layout, raised when older checkpoints can no longer be read. 2 used other names of the state."""

MAX_SHOWN = 5
"""Number of differences that are named."""


class CheckpointError(MyXTTSError):
    """A checkpoint is missing, damaged or of another run; the message names it and the fix."""


class DamagedCheckpoint(CheckpointError):
    """Bytes of a checkpoint are missing or changed; the previous one may still be intact."""


@dataclass(kw_only=True)
class Checkpoint:
    """Everything that a run needs to resume with the result of an uninterrupted one.

    Attributes:
        step: Optimizer steps done.
        model, ema: Parameter name -> tensor.
        optimizer: The optimizer's `state_dict()`.
        rng: Name of a random number generator -> its states, one row per process (uint8).
        extra: JSON data: position of the sampler, loss scaler, state of the monitors, fingerprint of the run.
        score: Validation metric, lower is better; None when this step was not validated.
        healthy: Whether the last steps were good, so that a run may be rolled back to this checkpoint.
    """

    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: dict[str, Tensor]
    extra: dict[str, Any]
    score: float | None = None
    healthy: bool = True


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """Description of a checkpoint on disk, read without loading its tensors."""

    step: int
    score: float | None
    path: Path
    healthy: bool


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep_top_k: int) -> Path:
    """Writes `folder/step-<n>/` atomically, then removes the checkpoints that need not be kept.

    The last one, the last healthy one and the `keep_top_k` with the best scores are kept.

    Returns:
        The folder of the new checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*.partial"):  # a process was killed while it wrote
        shutil.rmtree(leftover)
    path = folder / f"step-{checkpoint.step:08d}"
    with atomic_write(path) as partial:
        _write(partial, checkpoint)
    _flush(folder)
    _prune(folder, keep_top_k)
    return path


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the files of a checkpoint into a new folder and waits until they are on disk."""
    folder.mkdir()
    moments = {
        f"state.{index}.{name}": value
        for index, slots in checkpoint.optimizer["state"].items()
        for name, value in slots.items()
    }
    moments |= {f"rng.{name}": value for name, value in checkpoint.rng.items()}
    checksums = {}
    for name, tensors in (("model", checkpoint.model), ("ema", checkpoint.ema), ("optimizer", moments)):
        path = folder / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        _flush(path)
        checksums[path.name] = sha256_of_file(path)
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "score": checkpoint.score,
        "healthy": checkpoint.healthy,
        "checksums": checksums,
        "param_groups": checkpoint.optimizer["param_groups"],
        "extra": checkpoint.extra,
    }
    (folder / STATE).write_text(json.dumps(state, indent=1), "utf-8")
    (folder / STATE_CHECKSUM).write_text(sha256_of_file(folder / STATE), "utf-8")
    _flush(folder / STATE)
    _flush(folder / STATE_CHECKSUM)
    _flush(folder)


def list_checkpoints(folder: Path) -> list[CheckpointInfo]:
    """Returns every complete checkpoint, oldest first.

    A folder whose description cannot be read is renamed to `damaged-step-<n>`, with a warning.
    """
    found = []
    for path in sorted(folder.glob("step-*")):
        try:
            state = _read_state(path)
            found.append(CheckpointInfo(step=state.step, score=state.score, path=path, healthy=state.healthy))
        except DamagedCheckpoint as error:
            _set_aside(path, str(error))
    return found


def best_checkpoint(folder: Path) -> Path:
    """Returns the checkpoint with the lowest score, or the last one where none was scored.

    Raises:
        CheckpointError: the folder holds no checkpoint.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint here; train first")
    return (*_by_score(found), found[-1])[0].path


def newest_loadable(folder: Path, healthy: bool = False) -> Path | None:
    """Returns the newest intact checkpoint, or None; damaged ones are renamed on the way, with a warning.

    Args:
        folder: Folder of the run's checkpoints.
        healthy: Consider only checkpoints that a run may be rolled back to.
    """
    for info in reversed(list_checkpoints(folder)):
        if healthy and not info.healthy:
            continue
        try:
            load_checkpoint(info.path)
            return info.path
        except DamagedCheckpoint as error:
            _set_aside(info.path, str(error))
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Loads one checkpoint folder.

    Raises:
        DamagedCheckpoint: a file is missing, or its checksum differs.
        CheckpointError: the checkpoint has another format.
    """
    try:
        state = _read_state(path)
        if state.format != FORMAT:
            raise CheckpointError(
                f"{path}: checkpoint format {state.format}, this version reads {FORMAT}; "
                "resume with the version that wrote it, or train again in another folder"
            )
        for name, checksum in state.checksums.items():
            if sha256_of_file(path / name) != checksum:
                raise DamagedCheckpoint(f"{path}: damaged checkpoint (the checksum of {name} differs)")
        model, ema, moments = (load_file(path / f"{name}.safetensors") for name in ("model", "ema", "optimizer"))
    except (OSError, SafetensorError) as error:
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
    return Checkpoint(
        step=state.step,
        model=model,
        ema=ema,
        optimizer={"state": slots, "param_groups": state.param_groups},
        rng=rng,
        extra=state.extra,
        score=state.score,
        healthy=state.healthy,
    )


@dataclass(frozen=True, kw_only=True)
class _State:
    """Content of `state.json`."""

    step: int
    score: float | None
    checksums: dict[str, str]
    param_groups: list[dict[str, Any]]
    extra: dict[str, Any]
    format: int = 1
    healthy: bool = True


def _read_state(path: Path) -> _State:
    """Returns the description of a checkpoint.

    Raises:
        DamagedCheckpoint: it is missing, or was changed after it was written.
    """
    try:
        checksum = (path / STATE_CHECKSUM).read_bytes().decode("ascii", "replace")
        changed = checksum != sha256_of_file(path / STATE)
    except FileNotFoundError:  # of an older version, or no description at all
        changed = False
    if changed:
        raise DamagedCheckpoint(f"{path}: damaged checkpoint (the checksum of {STATE} differs)")
    state = read_record(path / STATE, _State, DamagedCheckpoint, "damaged checkpoint")
    if f"step-{state.step:08d}" != path.name:
        raise DamagedCheckpoint(f"{path / STATE}: `step` is {state.step}, unlike the folder's name; damaged checkpoint")
    return state


def remove_checkpoints_after(folder: Path, step: int) -> None:
    """Removes the checkpoints of later steps than `step`, which a run discards when it is rolled back."""
    for info in list_checkpoints(folder):
        if info.step > step:
            shutil.rmtree(info.path)


def _prune(folder: Path, keep_top_k: int) -> None:
    found = list_checkpoints(folder)
    healthy = [info.path for info in found if info.healthy]
    keep = {found[-1].path, *healthy[-1:], *(info.path for info in _by_score(found)[:keep_top_k])}
    for info in found:
        if info.path not in keep:
            shutil.rmtree(info.path)


def _by_score(found: list[CheckpointInfo]) -> list[CheckpointInfo]:
    """Returns the checkpoints with a finite score, best first; NaN compares with nothing and counts as no score."""
    scored = [(info.score, info) for info in found if info.score is not None and math.isfinite(info.score)]
    return [info for _, info in sorted(scored, key=lambda pair: pair[0])]


def _set_aside(path: Path, reason: str) -> None:
    """Renames a damaged checkpoint, so that it is not used and can still be examined."""
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    log.warning("%s; set aside as %s, using the previous checkpoint", reason, aside.name)


def _flush(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Returns what differs between two runs, such as `training.batch_size is 16 instead of 8`.

    Args:
        saved: Settings and hashes by dotted key, as the checkpoint holds them; empty in checkpoints of older versions.
        current: The same of the current run.
    """
    if not saved:
        return "its settings or its data differ"
    names = [name for name in sorted(saved.keys() | current.keys()) if saved.get(name) != current.get(name)]
    shown = [
        f"{name} is {_shown_value(current, name)} instead of {_shown_value(saved, name)}" for name in names[:MAX_SHOWN]
    ]
    if len(names) > MAX_SHOWN:
        shown.append(f"and {len(names) - MAX_SHOWN} more")
    return ", ".join(shown) or "another version of the program made it"


def _shown_value(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "not set"
