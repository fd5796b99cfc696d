"""Settings of everything that judges a voice: evaluation, registry and gate, studies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from model.config import Positive, Section, Share, StepSettings
from model.config.data import AudioConfig


class EvaluationConfig(Section):
    """What is measured after training."""

    max_clips: Positive = 12
    """Most held-out clips, and most training clips, that are measured."""
    max_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Most speech of each that is measured: the recogniser takes about as long as the speech lasts."""
    recognizer: Literal["pocketsphinx", "none"] = "pocketsphinx"
    """Offline recogniser of the character error rate (English only)."""


class RegistryConfig(Section):
    """The registered model and the gate before promotion. Every threshold compares like with like (see docs)."""

    name: str = "myxtts-{corpus}-{size}"
    max_mel_cepstral_distortion: Annotated[float, Field(gt=0)] = 12.0
    """Gate: MCD (dB, DTW-aligned) on held-out sentences."""
    max_character_error_increase: Annotated[float, Field(gt=0)] = 0.35
    """Gate: CER of synthesised held-out sentences minus CER of their recordings."""
    min_alignment_monotonicity: Share = 0.8
    """Gate: share of frames whose likeliest token is that of the frame before or the one or two after it."""
    max_regression: Annotated[float, Field(ge=0)] = 0.02
    """Gate: relative loss against the champion on its primary measure that is still accepted."""


class StudyConfig(Section):
    """Hyperparameter studies: budget of one trial and the pruner."""

    trials: Positive = 12
    max_steps: Positive = 300
    """Optimiser steps of one trial at the largest batch of the size; smaller batches get more (equal samples)."""
    pruner_startup_trials: Annotated[int, Field(ge=0)] = 3
    pruner_warmup_evaluations: Annotated[int, Field(ge=0)] = 1


class EvaluateSettings(StepSettings):
    """Settings that the evaluation of a voice reads."""

    seed: Annotated[int, Field(ge=0)]
    audio: AudioConfig
    evaluation: EvaluationConfig


class GateSettings(StepSettings):
    """Settings that the decision on a promotion reads."""

    registry: RegistryConfig
