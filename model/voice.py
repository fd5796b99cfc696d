"""The voice: a trained acoustic model as a folder that needs nothing else to speak.

`model.safetensors` holds the weights, `voice.json` what they fit: settings, extractor and symbol hashes, speakers with
their vectors and pitch statistics, languages. Training writes it, synthesis and the registry read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.acoustic.global_variance import give_back_variance
from model.acoustic.model import AcousticModel, ModelDimensions
from model.audio.mel import extractor_hash
from model.config.resolution import subset
from model.config.schema import Config
from model.errors import MyXTTSError
from model.text.symbols import symbols_hash
from model.voice_folder import DESCRIPTION, WEIGHTS, vocoder_of

FORMAT = 3
SPOKEN_WITH = ("model_size", "audio", "features", "model", "vocoder")
"""Settings that a voice needs in order to speak; a change of any other key leaves old voices readable."""
TRAINED_WITH = ("optimization_level", "seed", "loss", "training")
"""Settings that a voice remembers, as told to the trainer, without reading them again."""


class VoiceError(MyXTTSError):
    """A voice folder is missing, damaged, untrained or made by another version; the message says which and the cure."""


@dataclass(frozen=True)
class Speaker:
    """One voice of the training data.

    Attributes:
        vector: Unit vector of the speaker encoder that the model was trained with.
        log_f0_mean, log_f0_std: Of its log F0 (Hz).
        style: (heads, tokens) mean weights that its recordings give the style tokens; None without style tokens.
    """

    vector: list[float]
    log_f0_mean: float
    log_f0_std: float
    style: list[list[float]] | None = None


@dataclass
class Voice:
    """A loaded voice.

    Attributes:
        model: None where only the description is at hand, to be written.
        energy_std: Of the log energies of the training data.
        variance_factors: (M,) by which the mels' distance from their mean is scaled (`model.acoustic.global_variance`).
        steps: Of training.
        vocoder: Folder of a neural vocoder's weights.
    """

    model: AcousticModel | None
    config: Config
    dimensions: ModelDimensions
    speakers: dict[str, Speaker]
    languages: list[str]
    speaker_languages: dict[str, str]
    energy_std: float
    variance_factors: list[float]
    steps: int
    vocoder: Path | None = None

    def natural(self, mel: np.ndarray) -> np.ndarray:
        """A predicted log-mel (S, M) with the spread of a recording's."""
        return give_back_variance(mel, np.array(self.variance_factors))


def write_voice(folder: Path, voice: Voice, weights: dict[str, Tensor]) -> Path:
    """Write `weights` and the description of `voice` to `folder`, replacing what was there in one move."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial / WEIGHTS)
    description: dict[str, Any] = {
        "format": FORMAT,
        "steps": voice.steps,
        "extractor_hash": extractor_hash(voice.config.audio),
        "symbols_hash": symbols_hash(),
        "weights_sha256": _sha256(partial / WEIGHTS),
        "languages": voice.languages,
        "speakers": {name: asdict(speaker) for name, speaker in voice.speakers.items()},
        "speaker_languages": voice.speaker_languages,
        "energy_std": voice.energy_std,
        "variance_factors": voice.variance_factors,
        "dimensions": asdict(voice.dimensions),
        "config": subset(voice.config, *SPOKEN_WITH),
        "trained_with": subset(voice.config, *TRAINED_WITH),
    }
    (partial / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return folder


def read_voice(folder: Path) -> Voice:
    """Load a voice for synthesis, in evaluation mode.

    Raises:
        VoiceError: missing or damaged files, another symbol table or format, or weights that were never trained.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    except FileNotFoundError as error:
        raise VoiceError(f"{folder}: no {DESCRIPTION} here; give the `voice` folder of a finished training") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise VoiceError(f"{folder / DESCRIPTION}: damaged ({error}); fetch or export the voice again") from error
    if not isinstance(description, dict) or "format" not in description:
        raise VoiceError(f"{folder / DESCRIPTION}: describes no voice; fetch or export the voice again")
    if description["format"] != FORMAT:
        raise VoiceError(
            f"{folder}: voice format {description['format']}, this version reads {FORMAT}; export it again"
        )
    if description["steps"] == 0:
        raise VoiceError(f"{folder}: these weights were never trained (0 steps) and would only make noise; train first")
    if description["symbols_hash"] != symbols_hash():
        raise VoiceError(
            f"{folder}: trained with symbol table {description['symbols_hash']}, this version has {symbols_hash()}; "
            "use the version that trained it or train again"
        )
    if not (folder / WEIGHTS).is_file() or _sha256(folder / WEIGHTS) != description["weights_sha256"]:
        raise VoiceError(f"{folder / WEIGHTS}: missing or not the weights that {DESCRIPTION} describes; fetch it again")
    try:
        config = Config.model_validate(description["config"])
    except ValidationError as error:
        raise VoiceError(f"{folder / DESCRIPTION}: settings that this version does not know: {error}") from error
    dimensions = ModelDimensions(**description["dimensions"])
    model = AcousticModel(config.model, dimensions)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise VoiceError(
            f"{folder}: made by another version of the model; train again or use that version: {error}"
        ) from error
    speakers = {name: Speaker(**speaker) for name, speaker in description["speakers"].items()}
    return Voice(
        model.eval(),
        config,
        dimensions,
        speakers,
        description["languages"],
        description["speaker_languages"],
        description["energy_std"],
        description["variance_factors"],
        description["steps"],
        vocoder_of(folder),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
