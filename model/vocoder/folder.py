"""The vocoder as a folder: `generator.safetensors`, `vocoder.json`, and `discriminators.safetensors` to train on from.

Weights stand under their official names, norms unfolded, so that what came in goes out again unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.audio.mel import extractor_hash
from model.config.data import AudioConfig
from model.errors import CheckpointFormatError
from model.vocoder.architectures import ARCHITECTURES
from model.vocoder.official import VocoderWeights, read_official

FORMAT = 1
GENERATOR, DISCRIMINATORS, DESCRIPTION = "generator.safetensors", "discriminators.safetensors", "vocoder.json"


def write_vocoder(folder: Path, weights: VocoderWeights) -> Path:
    """Write the folder, replacing what was there in one move."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.generator.items()}, partial / GENERATOR)
    if weights.discriminators:
        judges = {f"{n}/{k}": t.contiguous() for n, state in weights.discriminators.items() for k, t in state.items()}
        save_file(judges, partial / DISCRIMINATORS)
    description = {
        "format": FORMAT,
        "type": weights.kind,
        "variant": weights.variant,
        "steps": weights.steps,
        "origin": weights.origin,
        "audio": weights.audio.model_dump(mode="json"),
        "extractor_hash": extractor_hash(weights.audio),
        "generator_sha256": _sha256(partial / GENERATOR),
    }
    (partial / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n", "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return folder


def read_vocoder(path: Path, audio: AudioConfig | None = None, kind: str = "", variant: str = "") -> VocoderWeights:
    """Weights of a vocoder folder or of an official file.

    Args:
        path: Folder that `write_vocoder` wrote, or an official file.
        audio: Mel settings that they must fit.
        kind, variant: What they must be; '' takes any.

    Raises:
        CheckpointFormatError: missing, damaged, untrained, of another kind or for other mels.
    """
    path = Path(path)
    weights = _read_folder(path) if path.is_dir() else read_official(path)
    if kind and weights.kind != kind:
        raise CheckpointFormatError(
            f"{path}: a {weights.kind} vocoder, but vocoder.type is {kind}; set one to the other"
        )
    if variant and weights.variant != variant:
        raise CheckpointFormatError(
            f"{path}: {weights.kind} {weights.variant}, but the settings say {variant}; "
            f"set vocoder.variant to {weights.variant}"
        )
    if audio is not None:
        check_audio(path, weights.audio, audio)
    return weights


def check_audio(path: Path, made: AudioConfig, asked: AudioConfig) -> None:
    """Refuse a vocoder of other mels.

    Raises:
        CheckpointFormatError: naming both settings.
    """
    if extractor_hash(made) == extractor_hash(asked):
        return
    theirs, ours = made.model_dump(), asked.model_dump()
    differing = ", ".join(
        f"{key} {theirs[key]:g} there, {ours[key]:g} here" for key in ours if theirs[key] != ours[key]
    )
    raise CheckpointFormatError(
        f"{path}: trained on other mel spectrograms ({differing}); it would turn these into noise. "
        f"Use weights for {asked.sample_rate} Hz and {asked.n_mels} mel bands, or set `audio` to the vocoder's "
        "settings and train the acoustic model anew"
    )


def describe(path: Path) -> dict[str, Any]:
    """What a vocoder folder says of itself.

    Raises:
        CheckpointFormatError: it is none.
    """
    try:
        description = json.loads((path / DESCRIPTION).read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointFormatError(f"{path}: no {DESCRIPTION} here, so this is no vocoder's folder") from error
    except json.JSONDecodeError as error:
        raise CheckpointFormatError(f"{path / DESCRIPTION}: damaged ({error}); fetch it again") from error
    if description.get("format") != FORMAT or description.get("type") not in ARCHITECTURES:
        raise CheckpointFormatError(f"{path / DESCRIPTION}: of another version; export the vocoder again")
    return description


def _read_folder(path: Path) -> VocoderWeights:
    description = describe(path)
    generator = path / GENERATOR
    if not generator.is_file() or _sha256(generator) != description["generator_sha256"]:
        raise CheckpointFormatError(
            f"{generator}: missing or not the weights that {DESCRIPTION} describes; fetch it again"
        )
    discriminators: dict[str, dict] = {}
    try:
        if (path / DISCRIMINATORS).is_file():
            for name, tensor in load_file(path / DISCRIMINATORS).items():
                owner, _, key = name.partition("/")
                discriminators.setdefault(owner, {})[key] = tensor
        return VocoderWeights(
            description["type"],
            description["variant"],
            AudioConfig.model_validate(description["audio"]),
            description["steps"],
            load_file(generator),
            discriminators,
            description["origin"],
        )
    except (SafetensorError, ValidationError, KeyError) as error:
        raise CheckpointFormatError(f"{path}: damaged vocoder folder ({error}); fetch it again") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
