"""Settings of the vocoder: its type, its weights, its training and its fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from model.addresses import without_credentials
from model.config import Positive, Section, Share, StepSettings
from model.config.data import AudioConfig

VARIANTS = {
    "griffin_lim": ("default", "tiny", "xtiny"),
    "hifigan": ("default", "v1", "v2", "v3", "tiny", "xtiny"),
    "univnet": ("default", "c16", "c32", "tiny", "xtiny"),
    "vocos": ("default", "full", "small", "tiny", "xtiny"),
}
"""Sizes by type. Griffin-Lim has none; it accepts those that the presets set."""
Weight = Annotated[float, Field(ge=0)]
Checkpoint = Annotated[
    str,
    AfterValidator(
        without_credentials(
            "use s3://bucket/key, with the credentials in the Kubernetes secret of cluster.s3_secret, or in "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on this machine"
        )
    ),
]


class VocoderConfig(Section):
    """Mel to waveform. The keys from `device` on are for training and fine-tuning of neural vocoders."""

    type: Literal["griffin_lim", "hifigan", "univnet", "vocos"] = "griffin_lim"
    """`griffin_lim` needs no training; the others are networks, trained on the corpus or started from `checkpoint`."""
    variant: Literal["default", "v1", "v2", "v3", "c16", "c32", "full", "small", "tiny", "xtiny"] = "default"
    """Size of the generator: the published `v1`, `v2`, `v3` of HiFi-GAN, `c16`, `c32` of UnivNet and `full` of Vocos,
    or a smaller one; `tiny` trains in minutes on two cores. `default` is `v2`, `c16` or `full`."""
    checkpoint: Checkpoint = ""
    """Pretrained weights: a folder of `myxtts vocoder`, or a published file (a path, `https://` or `s3://`)."""
    checkpoint_sha256: Annotated[str, Field(pattern=r"^([0-9a-fA-F]{64})?$")] = ""
    """SHA-256 of `checkpoint`, the file or the folder's `generator.safetensors`; required for downloads, otherwise
    computed by the pipeline, so that another checkpoint under the same path is detected."""
    start_from_base: bool = True
    """Start from the vocoder of the voice that the training started from (`training.start_from`), if it has one of this
    type and variant and no `checkpoint` is given."""
    griffin_lim_start: Literal["random", "continued"] = "continued"
    """Phases that Griffin-Lim starts from: `continued` from frame to frame, which makes 8 iterations as good as 32 from
    `random` ones, and allows streaming."""
    griffin_lim_iterations: Positive | None = None
    """Iterations of Griffin-Lim [default: 8 from continued phases, 60 from random ones]."""
    griffin_lim_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Momentum of the iterations of Griffin-Lim."""
    refinement_iterations: Annotated[int, Field(ge=0)] | None = None
    """Griffin-Lim iterations on the magnitudes that Vocos predicts, from continued phases; 0 takes the phases as they
    are: continued ones, or those that `full` predicts [default: 1, and 0 for `full`]."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of a neural vocoder in synthesis; bfloat16 is faster where the processor supports it."""
    chunk_frames: Positive = 512
    """Mel frames that are vocoded at once; longer speech is vocoded in chunks with the same result, in bounded
    memory."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of training; `auto` takes a GPU if there is one."""
    enable_compile: bool = False
    """`torch.compile` of the generator in training, of Vocos the backbone, where all segments have one shape."""
    max_steps: Positive = 100000
    """Steps of training on the mels of the recordings. With `checkpoint` the pipeline skips them, and `myxtts vocoder
    train` starts from it."""
    finetune_steps: Annotated[int, Field(ge=0)] = 20000
    """Steps of fine-tuning on the mels that the acoustic model predicts for the recordings; 0 skips it."""
    batch_size: Positive = 16
    """Segments per step."""
    segment_frames: Annotated[int, Field(ge=8)] = 32
    """Mel frames of a training segment (32 are 8192 samples)."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Initial learning rate [default: as published: 2e-4 for HiFi-GAN, 1e-4 for UnivNet, 5e-4 for Vocos]."""
    final_learning_rate_ratio: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The learning rate decays to this fraction of its initial value: exponentially, for Vocos along a cosine."""
    finetune_learning_rate_ratio: Annotated[float, Field(gt=0)] = 0.2
    """Initial learning rate of fine-tuning as a fraction of `learning_rate`: at the full learning rate, pretrained
    weights get worse first (mel loss from 0.51 to 0.84 in twenty steps of `tiny`)."""
    mel_loss_weight: Weight | None = None
    """Weight of the L1 distance of log-mels [default: as published: 45 for HiFi-GAN and Vocos, 0 for UnivNet; 0 for the
    small variants of Vocos]."""
    feature_matching_loss_weight: Weight | None = None
    """Weight of the feature matching loss [default: as published: 2 for HiFi-GAN, 0 for UnivNet, 1 for Vocos]."""
    stft_loss_weight: Weight | None = None
    """Weight of the multi-resolution STFT loss [default: as published: 0 for HiFi-GAN and Vocos, 2.5 for UnivNet; 2.5
    for the variant `tiny` of HiFi-GAN]."""
    magnitude_loss_weight: Weight | None = None
    """Weight of the distance of the magnitudes that Vocos predicts from those of the recording [default: 45 for the
    variants `small` and `tiny`, which learn nothing else before the discriminators join; 0 for others]."""
    adversarial_start: Share | None = None
    """Fraction of training at which new discriminators start; before, the generator learns from spectral losses alone
    [default: 0; 0.6 for `tiny`; 1 for the small variants of Vocos]."""
    finetune_adversarial_start: Share = 0.0
    """Fraction of fine-tuning at which the pretrained discriminators start; 1 leaves them out."""
    discriminator_freeze_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of fine-tuning in which pretrained discriminators are frozen."""
    gradient_clip_norm: Weight = 0.0
    """Largest gradient norm of each network; 0 clips nothing, as published."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the averaged generator that is validated and exported; 0 uses the raw weights, as published."""
    use_mixed_precision: bool = False
    """Train in bfloat16, with losses and spectra in float32, where the processor supports it."""
    evaluation_interval: Positive = 1000
    """Steps between validations."""
    checkpoint_interval: Positive = 500
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _consistent(self) -> VocoderConfig:
        known = VARIANTS[self.type]
        if self.variant not in known:
            raise ValueError(f"vocoder.variant {self.variant} does not exist for {self.type}; use {' or '.join(known)}")
        if self.checkpoint_sha256 and not self.checkpoint:
            raise ValueError("vocoder.checkpoint_sha256 requires vocoder.checkpoint; set it")
        return self


class FinetuneVocoderSettings(StepSettings):
    """Settings of the `finetune_vocoder` step."""

    seed: Annotated[int, Field(ge=0)]
    audio: AudioConfig
    vocoder: VocoderConfig
