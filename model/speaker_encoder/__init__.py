"""Pretrained speaker encoders, by the name that `features.speaker_encoder_model` gives them."""

from __future__ import annotations

from pathlib import Path

from model.config.data import FeaturesConfig
from model.speaker_encoder.base import SAMPLE_RATE, SpeakerEncoder, SpeakerEncoderError, centroid
from model.speaker_encoder.deep_speaker import DeepSpeaker
from model.speaker_encoder.resemblyzer import Resemblyzer

__all__ = [
    "ENCODERS",
    "SAMPLE_RATE",
    "DeepSpeaker",
    "Resemblyzer",
    "SpeakerEncoder",
    "SpeakerEncoderError",
    "centroid",
    "load_speaker_encoder",
]

ENCODERS: dict[str, type[Resemblyzer] | type[DeepSpeaker]] = {"resemblyzer": Resemblyzer, "deep_speaker": DeepSpeaker}


def load_speaker_encoder(settings: FeaturesConfig, saved: Path | None = None) -> SpeakerEncoder:
    """The encoder that the settings name.

    Args:
        settings: Section `features`.
        saved: What `SpeakerEncoder.save` wrote, instead of the weights that the settings name.

    Raises:
        SpeakerEncoderError: its weights are missing or are not what the settings say.
    """
    encoder = ENCODERS[settings.speaker_encoder_model]
    if saved is not None:
        return encoder.load(saved)
    named = settings.speaker_encoder_weights
    return encoder.load(Path(named) if named else None, settings.speaker_encoder_sha256)
