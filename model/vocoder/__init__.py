"""Vocoders: log-mel spectrogram -> waveform."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from model.audio.griffin_lim import GriffinLim
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.errors import VocoderError
from model.vocoder.architectures import ARCHITECTURES
from model.vocoder.neural import NeuralVocoder

__all__ = ["ARCHITECTURES", "GriffinLim", "NeuralVocoder", "Vocoder", "VocoderError", "build_vocoder"]


class Vocoder(Protocol):
    """What synthesis asks of a vocoder; `name` is what reports call it."""

    name: str

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """(S, n_mels) log-mel -> (S * hop,) float32 samples in [-1, 1]; `VocoderError` for what is no mel."""


def build_vocoder(vocoder: VocoderConfig, audio: AudioConfig, weights: Path | None = None) -> Vocoder:
    """The vocoder that the settings name, for mels of these audio settings.

    Args:
        vocoder: Settings.
        audio: Mel settings.
        weights: Folder of a neural vocoder's weights.

    Raises:
        VocoderError: a neural vocoder without weights, or with weights that do not fit.
    """
    if vocoder.type not in ARCHITECTURES:
        return GriffinLim(audio, vocoder.griffin_lim_iterations, vocoder.griffin_lim_momentum)
    if weights is None:
        raise VocoderError(
            f"{vocoder.type} has no trained weights here and would only make noise; give this voice some with "
            "`myxtts vocoder finetune`, or set vocoder.type to griffin_lim"
        )
    return NeuralVocoder.load(weights, vocoder, audio)
