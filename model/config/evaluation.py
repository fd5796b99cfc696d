"""Settings of evaluation, registry and gate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from model.config import Positive, Section, Share, StepSettings
from model.config.data import AudioConfig


class EvaluationConfig(Section):
    """Amount of speech that is evaluated after training."""

    max_clips: Positive = 12
    """Largest number of held-out clips, and of training clips, to evaluate."""
    max_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest total duration of either: the recognizer takes about as long as the speech lasts."""
    min_sentences: Annotated[int, Field(ge=0)] = 8
    """Number of unseen sentences below which the voice also speaks English texts without recordings, so that the
    character error rate does not rest on one or two held-out clips."""
    recognizer: Literal["pocketsphinx", "none"] = "pocketsphinx"
    """Offline recognizer for the character error rate (English only)."""
    max_recording_error: Annotated[float, Field(gt=0)] = 0.4
    """Character error rate of the recordings above which the recognizer does not understand them, so that the gate does
    not check the character error of the voice. Read speech has 0.05 to 0.2, espeak-ng's English about 0.6."""


class RegistryConfig(Section):
    """Name of the registered model, and thresholds of the gate before promotion."""

    name: str = "myxtts-{corpus}-{size}"
    max_mel_cepstral_distortion: Annotated[float, Field(gt=0)] = 12.0
    """Gate: MCD (dB, DTW-aligned) on held-out sentences."""
    max_character_error_increase: Annotated[float, Field(gt=0)] = 0.35
    """Gate: CER of synthesized held-out sentences minus CER of their recordings."""
    min_alignment_monotonicity: Share = 0.8
    """Gate: fraction of frames whose most likely token is that of the previous frame or one of the next two."""
    max_regression: Annotated[float, Field(ge=0)] = 0.02
    """Gate: largest accepted relative regression of the primary metric against the champion."""


class EvaluateSettings(StepSettings):
    """Settings of the `evaluate` step."""

    seed: Annotated[int, Field(ge=0)]
    audio: AudioConfig
    evaluation: EvaluationConfig


class GateSettings(StepSettings):
    """Settings of the `gate` step."""

    registry: RegistryConfig
