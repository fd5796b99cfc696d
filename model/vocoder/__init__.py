"""Vocoders: log-mel spectrogram -> waveform."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from model.config.schema import AudioConfig, VocoderConfig
from model.vocoder.griffin_lim import GriffinLim, VocoderError

__all__ = ["GriffinLim", "Vocoder", "VocoderError", "build_vocoder"]


class Vocoder(Protocol):
    """What synthesis asks of a vocoder."""

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """(S, n_mels) log-mel -> (S * hop,) float32 samples in [-1, 1]; `VocoderError` for what is no mel."""


VOCODERS = {"griffin_lim": GriffinLim}


def build_vocoder(vocoder: VocoderConfig, audio: AudioConfig) -> Vocoder:
    """The vocoder that the settings name, for mels of these audio settings."""
    return VOCODERS[vocoder.type](vocoder, audio)
