"""Vocoders: log-mel spectrogram -> waveform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from model.audio.griffin_lim import GriffinLim
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.errors import VocoderError
from model.vocoder.architectures import ARCHITECTURES
from model.vocoder.neural import NeuralVocoder
from model.vocoder.streaming import ContinuedGriffinLim

__all__ = ["ARCHITECTURES", "GriffinLim", "NeuralVocoder", "Vocoder", "VocoderError", "build_vocoder", "griffin_lim"]


GRIFFIN_LIM_ITERATIONS = {"continued": 8, "random": 60}
"""Default iterations of Griffin-Lim by the phases that it starts from."""


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

    def stream(self, mel: np.ndarray, first_frames: int = 0) -> Iterator[np.ndarray]:
        """Yields the samples of `__call__` in chunks, the first one of `first_frames` frames where given."""
        ...


def griffin_lim(vocoder: VocoderConfig, audio: AudioConfig) -> Vocoder:
    """Returns Griffin-Lim as the settings describe it."""
    iterations = vocoder.griffin_lim_iterations or GRIFFIN_LIM_ITERATIONS[vocoder.griffin_lim_start]
    momentum = vocoder.griffin_lim_momentum
    if vocoder.griffin_lim_start == "continued":
        return ContinuedGriffinLim(audio, iterations, momentum, vocoder.chunk_frames)
    return GriffinLim(audio, iterations, momentum)


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
        return griffin_lim(vocoder, audio)
    if weights is None:
        raise VocoderError(
            f"{vocoder.type} has no trained weights here and would generate noise; fine-tune it for this voice with "
            "`myxtts vocoder finetune`, or set vocoder.type to griffin_lim"
        )
    return NeuralVocoder.load(weights, vocoder, audio)
