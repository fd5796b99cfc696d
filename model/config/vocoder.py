"""Settings of the vocoder: which one speaks, where its weights come from, and how it is trained and fine-tuned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from model.config import Positive, Section, Share, StepSettings
from model.config.data import AudioConfig

VARIANTS = {
    "griffin_lim": ("default", "tiny", "xtiny"),
    "hifigan": ("default", "v1", "v2", "v3", "tiny", "xtiny"),
    "univnet": ("default", "c16", "c32", "tiny", "xtiny"),
}
"""Type -> its sizes. Griffin-Lim has none; it tolerates those that the presets set."""


Weight = Annotated[float, Field(ge=0)]


class VocoderConfig(Section):
    """Mel to waveform. The keys from `device` on are of training and fine-tuning, which Griffin-Lim does not need."""

    type: Literal["griffin_lim", "hifigan", "univnet"] = "griffin_lim"
    """`griffin_lim` needs no training; `hifigan` and `univnet` are trained on the corpus or start from `checkpoint`."""
    variant: Literal["default", "v1", "v2", "v3", "c16", "c32", "tiny", "xtiny"] = "default"
    """Size of the generator: `v1`, `v2`, `v3` of HiFi-GAN, `c16`, `c32` of UnivNet, as published; `tiny` for minutes on
    two cores. `default` is `v2` or `c16`."""
    checkpoint: str = ""
    """Weights to start from instead of training them: a folder of `myxtts vocoder`, or an official file (a path,
    `https://` or `s3://`)."""
    checkpoint_sha256: str = ""
    """SHA-256 of `checkpoint`, the file or the folder's `generator.safetensors`; required where it is fetched, and else
    noted by the pipeline, so that another checkpoint under the same path is not taken for this one."""
    griffin_lim_iterations: Positive = 60
    griffin_lim_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of a neural vocoder when speaking; bfloat16 is faster where the processor computes in it."""
    chunk_frames: Positive = 512
    """Mel frames vocoded at once; longer speech is made in chunks that join exactly, in bounded memory."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a vocoder is trained; `auto` takes a GPU where there is one."""
    enable_compile: bool = False
    """`torch.compile` of the generator in training, whose segments have one shape: one graph."""
    max_steps: Positive = 100000
    """Steps of training on the recordings' own mels. Where `checkpoint` is given the pipeline leaves them out, and
    `myxtts vocoder train` goes on from there."""
    finetune_steps: Annotated[int, Field(ge=0)] = 20000
    """Steps of fine-tuning on the mels that the acoustic model predicts for the recordings; 0 leaves it out."""
    batch_size: Positive = 16
    segment_frames: Annotated[int, Field(ge=8)] = 32
    """Mel frames of a training segment (32 are 8192 samples)."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """[default: as published for the type: 2e-4 for HiFi-GAN, 1e-4 for UnivNet]"""
    final_learning_rate_ratio: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The rate falls exponentially to this share of itself over the steps."""
    finetune_learning_rate_ratio: Annotated[float, Field(gt=0)] = 0.2
    """A training that starts from weights starts at this share of the rate, where `final_learning_rate_ratio` left it:
    at the whole rate it first undoes what they have learned (mel loss 0.51 to 0.84 in twenty steps of `tiny`)."""
    mel_loss_weight: Weight | None = None
    """[default: as published: 45 for HiFi-GAN, 0 for UnivNet]"""
    feature_matching_loss_weight: Weight | None = None
    """[default: as published: 2 for HiFi-GAN, 0 for UnivNet]"""
    stft_loss_weight: Weight | None = None
    """Multi-resolution STFT loss [default: as published: 0 for HiFi-GAN, 2.5 for UnivNet]"""
    adversarial_start: Share = 0.0
    """Share of the steps before new discriminators join; until then the generator learns from spectra alone."""
    finetune_adversarial_start: Share = 0.0
    """The same share of a training that starts from weights, whose discriminators come along; 1 leaves them out."""
    discriminator_freeze_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of fine-tuning in which discriminators from before judge without learning."""
    gradient_clip_norm: Weight = 0.0
    """Joint norm that each network's gradient is clipped to; 0 clips nothing, as published."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the averaged generator that is validated and exported; 0 exports the raw weights, as published."""
    use_mixed_precision: bool = False
    """Train in bfloat16 with float32 losses and spectra, where the processor computes in it."""
    evaluation_interval: Positive = 1000
    checkpoint_interval: Positive = 500

    @model_validator(mode="after")
    def _consistent(self) -> VocoderConfig:
        known = VARIANTS[self.type]
        if self.variant not in known:
            raise ValueError(f"vocoder.variant {self.variant} is none of {self.type}'s: {', '.join(known)}")
        if self.checkpoint_sha256 and not self.checkpoint:
            raise ValueError("vocoder.checkpoint_sha256 is given without vocoder.checkpoint")
        return self


class FinetuneVocoderSettings(StepSettings):
    """Settings that the training and fine-tuning of a vocoder read."""

    seed: Annotated[int, Field(ge=0)]
    audio: AudioConfig
    vocoder: VocoderConfig
