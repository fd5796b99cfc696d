"""Pretrained speaker encoders, by their name in `features.speaker_encoder_model`."""

from __future__ import annotations

from pathlib import Path

from model.config.data import FeaturesConfig
from model.speaker_encoder.base import SAMPLE_RATE, SpeakerEncoder, SpeakerEncoderError, centroid
from model.speaker_encoder.deep_speaker import DeepSpeaker
from model.speaker_encoder.mel_input import MelResemblyzer
from model.speaker_encoder.resemblyzer import Resemblyzer

__all__ = [
    "ENCODERS",
    "SAMPLE_RATE",
    "DeepSpeaker",
    "MelResemblyzer",
    "Resemblyzer",
    "SpeakerEncoder",
    "SpeakerEncoderError",
    "centroid",
    "load_speaker_encoder",
]

ENCODERS: dict[str, type[Resemblyzer] | type[DeepSpeaker]] = {"resemblyzer": Resemblyzer, "deep_speaker": DeepSpeaker}


def load_speaker_encoder(settings: FeaturesConfig, saved: Path | None = None) -> SpeakerEncoder:
    """Loads the speaker encoder of the settings.

    Args:
        settings: Section `features`.
        saved: File that `SpeakerEncoder.save` wrote, instead of the weights in the settings.

    Raises:
        SpeakerEncoderError: the weights are missing, damaged, or have another checksum.
    """
    encoder = ENCODERS[settings.speaker_encoder_model]
    if saved is not None:
        return encoder.load(saved)
    weights = settings.speaker_encoder_weights
    return encoder.load(Path(weights) if weights else None, settings.speaker_encoder_sha256)
