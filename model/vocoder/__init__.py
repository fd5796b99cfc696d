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
    """Interface of the vocoders.

    Attributes:
        name: Name in reports.
    """

    name: str

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """Generates float32 samples (S * hop,) in [-1, 1] from a log-mel (S, M).

        Raises:
            VocoderError: the input is no log-mel.
        """
        ...


def build_vocoder(vocoder: VocoderConfig, audio: AudioConfig, weights: Path | None = None) -> Vocoder:
    """Returns the vocoder that the settings name.

    Args:
        vocoder: Settings of the vocoder.
        audio: Mel settings.
        weights: Folder of the weights of a neural vocoder.

    Raises:
        VocoderError: the weights of a neural vocoder are missing or do not fit.
    """
    if vocoder.type not in ARCHITECTURES:
        return GriffinLim(audio, vocoder.griffin_lim_iterations, vocoder.griffin_lim_momentum)
    if weights is None:
        raise VocoderError(
            f"{vocoder.type} has no trained weights here and would generate noise; fine-tune it for this voice with "
            "`myxtts vocoder finetune`, or set vocoder.type to griffin_lim"
        )
    return NeuralVocoder.load(weights, vocoder, audio)
