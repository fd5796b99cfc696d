"""Voice: a trained acoustic model as a self-contained folder.

`model.safetensors` holds the weights. `voice.json` holds settings, hashes of the feature extractor and the symbol
table, speakers with their embeddings and pitch statistics, and languages. Training writes the folder; synthesis and
the registry read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.acoustic.global_variance import restore_variance
from model.acoustic.model import AcousticModel, ModelDimensions
from model.audio.mel import extractor_hash
from model.config import ModelSize, Section
from model.config.acoustic import ModelConfig
from model.config.data import AudioConfig, FeaturesConfig
from model.errors import MyXTTSError
from model.files import atomic_write, read_record, sha256_of_file
from model.text.symbols import symbols_hash
from model.voice_folder import (
    DESCRIPTION,
    WEIGHTS,
    read_training_sentences,
    vocoder_of,
    write_training_sentences,
)

FORMAT = 4
MAX_DIMENSION = 100_000
"""Largest dimension of a model that is read from a file, so that a damaged file does not exhaust the memory."""


class VoiceError(MyXTTSError):
    """A voice folder is missing, damaged, untrained or made by another version; the message names the fix."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A speaker of the training data.

    Attributes:
        vector: Unit speaker embedding of the encoder that the model was trained with.
        log_f0_mean, log_f0_std: Mean and standard deviation of the log F0 (F0 in Hz).
        style: Mean style token weights (heads, tokens) of the recordings; None without style tokens.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    vector: list[float]
    log_f0_mean: float
    log_f0_std: float
    style: list[list[float]] | None = None


class VoiceSettings(Section):
    """Settings that synthesis needs; changes of other settings leave existing voices readable.

    `vocoder` is empty until a vocoder is chosen; it is validated when the vocoder is built.
    """

    model_size: ModelSize
    audio: AudioConfig
    features: FeaturesConfig
    model: ModelConfig
    vocoder: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VoiceDescription:
    """Contents of `voice.json`.

    Attributes:
        config: Settings of synthesis.
        trained_with: Settings of the training; informational.
        dimensions: Dimensions of the model that depend on the data.
        speakers: Name -> speaker.
        languages: Language codes, in the order of the model's embeddings.
        speaker_languages: Speaker -> language of its recordings.
        energy_std: Standard deviation of the log energies of the training data.
        variance_factors: (M,) factors on the distance of mels from their mean (`model.acoustic.global_variance`).
        steps: Training steps.
        lineage: The voice that its training started from, and that voice's ancestors, youngest first.
        licenses: Licenses of the recordings that it and its ancestors were trained on, as far as they were given.
        training_sentences: Hashes of the sentences that it or one of its ancestors was trained on; None if unknown.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    config: VoiceSettings
    trained_with: dict[str, Any]
    dimensions: ModelDimensions
    speakers: dict[str, Speaker]
    languages: list[str]
    speaker_languages: dict[str, str]
    energy_std: float
    variance_factors: list[float]
    steps: int
    lineage: list[dict[str, Any]] = field(default_factory=list)
    licenses: list[str] = field(default_factory=list)
    training_sentences: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Voice(VoiceDescription):
    """A loaded voice.

    Attributes:
        model: Acoustic model in evaluation mode.
        vocoder: Folder of a neural vocoder's weights; None where the voice has none.
    """

    model: AcousticModel
    vocoder: Path | None = None

    def restore_variance(self, mel: np.ndarray) -> np.ndarray:
        """Scales the variance of a predicted log-mel (S, M) to that of recordings."""
        return restore_variance(mel, np.array(self.variance_factors))


def write_voice(folder: Path, voice: VoiceDescription, weights: dict[str, Tensor]) -> Path:
    """Writes weights and their description to `folder`, replacing what was there atomically."""
    with atomic_write(folder) as partial:
        partial.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial / WEIGHTS)
        description: dict[str, Any] = {
            "format": FORMAT,
            "steps": voice.steps,
            "lineage": voice.lineage,
            "licenses": voice.licenses,
            "extractor_hash": extractor_hash(voice.config.audio),
            "symbols_hash": symbols_hash(),
            "weights_sha256": sha256_of_file(partial / WEIGHTS),
            "languages": voice.languages,
            "speakers": {name: asdict(speaker) for name, speaker in voice.speakers.items()},
            "speaker_languages": voice.speaker_languages,
            "energy_std": voice.energy_std,
            "variance_factors": voice.variance_factors,
            "dimensions": asdict(voice.dimensions),
            "config": voice.config.model_dump(mode="json"),
            "trained_with": voice.trained_with,
        }
        if voice.training_sentences is not None:
            path = write_training_sentences(partial, voice.training_sentences)
            description["training_sentences_sha256"] = sha256_of_file(path)
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), "utf-8")
    return folder


def read_voice(folder: Path) -> Voice:
    """Loads a voice for synthesis, in evaluation mode.

    Raises:
        VoiceError: missing or damaged files, another symbol table or format, or weights that were never trained.
    """
    description = _read_description(folder)
    try:
        model = AcousticModel(description.config.model, description.dimensions)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError, ValueError) as error:
        raise VoiceError(
            f"{folder}: made by another version of the model; train again or use that version: {error}"
        ) from error
    values = {field.name: getattr(description, field.name) for field in fields(VoiceDescription)}
    values["training_sentences"] = read_training_sentences(folder)
    return Voice(model=model.eval(), vocoder=vocoder_of(folder), **values)


def _read_description(folder: Path) -> VoiceDescription:
    path, damaged = folder / DESCRIPTION, "damaged; fetch or export the voice again"
    if not path.is_file():
        raise VoiceError(f"{folder}: no {DESCRIPTION} here; give the `voice` folder of a finished training")
    description = read_record(path, dict[str, Any], VoiceError, damaged)
    if "format" not in description:
        raise VoiceError(f"{path}: does not describe a voice; fetch or export the voice again")
    if description["format"] != FORMAT:
        raise VoiceError(
            f"{folder}: voice format {description['format']}, this version reads {FORMAT}; export it again"
        )
    voice = read_record(path, VoiceDescription, VoiceError, damaged)
    if voice.steps == 0:
        raise VoiceError(f"{folder}: these weights were never trained (0 steps) and would only make noise; train first")
    if description.get("symbols_hash") != symbols_hash():
        raise VoiceError(
            f"{folder}: trained with symbol table {description.get('symbols_hash')}, this version has "
            f"{symbols_hash()}; use the version that trained it or train again"
        )
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256_of_file(weights) != description.get("weights_sha256"):
        raise VoiceError(f"{folder / WEIGHTS}: missing or not the weights that {DESCRIPTION} describes; fetch it again")
    if problem := _inconsistency(voice):
        raise VoiceError(f"{path}: {problem}; {damaged}")
    return voice


def _inconsistency(voice: VoiceDescription) -> str:
    """Returns the first inconsistency of a description; '' if there is none."""
    sizes = asdict(voice.dimensions)
    if bad := [name for name, size in sizes.items() if isinstance(size, int) and not 0 < size <= MAX_DIMENSION]:
        return f"`dimensions.{bad[0]}` is {sizes[bad[0]]}, not 1 to {MAX_DIMENSION}"
    if len(voice.variance_factors) != voice.dimensions.n_mels:
        return f"{len(voice.variance_factors)} `variance_factors` for {voice.dimensions.n_mels} mel bins"
    if len(voice.languages) != voice.dimensions.num_languages:
        return f"{len(voice.languages)} `languages` for {voice.dimensions.num_languages} embeddings"
    if not voice.speakers:
        return "`speakers` is empty"
    if voice.speakers.keys() != voice.speaker_languages.keys():
        return "`speaker_languages` and `speakers` differ in their names"
    if len({len(speaker.vector) for speaker in voice.speakers.values()}) != 1:
        return "the vectors of `speakers` differ in length"
    if not voice.energy_std > 0 or any(not speaker.log_f0_std > 0 for speaker in voice.speakers.values()):
        return "a standard deviation is not positive"
    return ""
