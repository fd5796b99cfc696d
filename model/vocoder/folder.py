"""Vocoder folder: `generator.safetensors`, `vocoder.json`, and `discriminators.safetensors` for further training.

Weights have their official names and keep their norms, so that exporting an imported vocoder leaves it unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.audio.mel import extractor_hash
from model.config.data import AudioConfig
from model.errors import CheckpointFormatError
from model.files import atomic_write, read_record, sha256_of_file, write_json
from model.vocoder.architectures import ARCHITECTURES
from model.vocoder.official import VocoderWeights, read_official
from model.vocoder.weights import State

FORMAT = 1
GENERATOR, DISCRIMINATORS, DESCRIPTION = "generator.safetensors", "discriminators.safetensors", "vocoder.json"


def write_vocoder(folder: Path, weights: VocoderWeights) -> Path:
    """Writes a vocoder folder, atomically replacing an existing one, and returns it."""
    with atomic_write(folder) as partial:
        partial.mkdir()
        save_file(_contiguous(weights.generator), partial / GENERATOR)
        if weights.discriminators:
            joined = {f"{name}/{key}": t for name, state in weights.discriminators.items() for key, t in state.items()}
            save_file(_contiguous(joined), partial / DISCRIMINATORS)
        description = {
            "format": FORMAT,
            "type": weights.kind,
            "variant": weights.variant,
            "steps": weights.steps,
            "origin": weights.origin,
            "audio": weights.audio.model_dump(mode="json"),
            "extractor_hash": extractor_hash(weights.audio),
            "generator_sha256": sha256_of_file(partial / GENERATOR),
        }
        write_json(partial / DESCRIPTION, description)
    return folder


def read_vocoder(path: Path, audio: AudioConfig | None = None, kind: str = "", variant: str = "") -> VocoderWeights:
    """Reads the weights of a vocoder folder or of an official file.

    Args:
        path: Folder written by `write_vocoder`, or an official file.
        audio: Mel settings that the weights must match.
        kind, variant: Type and variant that the weights must have; '' accepts any.

    Raises:
        CheckpointFormatError: the weights are missing, damaged, of another type or variant, or for other mels.
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


def check_audio(path: Path, trained: AudioConfig, required: AudioConfig) -> None:
    """Checks that a vocoder was trained on mels of the required settings.

    Raises:
        CheckpointFormatError: it was not; the message names the settings that differ.
    """
    if extractor_hash(trained) == extractor_hash(required):
        return
    theirs, ours = trained.model_dump(), required.model_dump()
    differing = ", ".join(
        f"{key} {theirs[key]:g} there, {ours[key]:g} here" for key in ours if theirs[key] != ours[key]
    )
    raise CheckpointFormatError(
        f"{path}: trained on other mel spectrograms ({differing}), so it would generate noise. "
        f"Use weights for {required.sample_rate} Hz and {required.n_mels} mel bands, or set `audio` to the vocoder's "
        "settings and train the acoustic model again"
    )


def read_description(path: Path) -> dict[str, Any]:
    """Returns the contents of a vocoder folder's `vocoder.json`.

    Raises:
        CheckpointFormatError: the folder holds no vocoder of this version.
    """
    if not (path / DESCRIPTION).is_file():
        raise CheckpointFormatError(f"{path}: no {DESCRIPTION} here; give the folder of a vocoder or an official file")
    description = read_record(path / DESCRIPTION, dict[str, Any], CheckpointFormatError, "damaged; fetch it again")
    version = description.get("format")
    if version != FORMAT or type(version) is not int or not _is_known(description.get("type")):
        raise CheckpointFormatError(f"{path / DESCRIPTION}: of another version; export the vocoder again")
    read_record(path / DESCRIPTION, _Description, CheckpointFormatError, "damaged; fetch it again")
    return description


@dataclass(frozen=True, kw_only=True)
class _Description:
    """Content of `vocoder.json`."""

    type: str
    variant: str
    steps: Annotated[int, Field(ge=0)]
    origin: str
    audio: AudioConfig
    generator_sha256: str


def _is_known(kind: Any) -> bool:
    return isinstance(kind, str) and kind in ARCHITECTURES


def _read_folder(path: Path) -> VocoderWeights:
    description = read_description(path)
    generator = path / GENERATOR
    if not generator.is_file() or sha256_of_file(generator) != description["generator_sha256"]:
        raise CheckpointFormatError(
            f"{generator}: missing or not the weights that {DESCRIPTION} describes; fetch it again"
        )
    discriminators: dict[str, State] = {}
    try:
        if (path / DISCRIMINATORS).is_file():
            for name, tensor in load_file(path / DISCRIMINATORS).items():
                discriminator, _, key = name.partition("/")
                discriminators.setdefault(discriminator, {})[key] = tensor
        return VocoderWeights(
            kind=description["type"],
            variant=description["variant"],
            audio=AudioConfig.model_validate(description["audio"]),
            steps=description["steps"],
            generator=load_file(generator),
            discriminators=discriminators,
            origin=description["origin"],
        )
    except (SafetensorError, ValidationError) as error:
        raise CheckpointFormatError(f"{path}: damaged vocoder folder ({error}); fetch it again") from error


def _contiguous(state: State) -> State:
    return {name: tensor.contiguous() for name, tensor in state.items()}
