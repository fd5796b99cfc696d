"""The schema of all settings, which `params.yaml`, `--config` files, presets and flags share.

`model.config.resolution.resolve` merges these layers into one `Config`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from model.config import ModelSize, OptimizationLevel, Section
from model.config.acoustic import ModelConfig
from model.config.data import AudioConfig, CorpusConfig, FeaturesConfig, SplitConfig, ValidationConfig
from model.config.evaluation import EvaluationConfig, RegistryConfig
from model.config.study import StudyConfig
from model.config.targets import ClusterConfig, DockerConfig, LaunchConfig
from model.config.training import LossConfig, TrainingConfig
from model.config.vocoder import VocoderConfig


class Config(Section):
    """Every setting of the system."""

    model_size: ModelSize = "tiny"
    """Preset of network widths, batch size, learning rate and warm-up."""
    optimization_level: OptimizationLevel = "enhanced"
    """Preset of training techniques."""
    seed: Annotated[int, Field(ge=0)] = 1234
    """Seed of all random numbers."""
    corpus: CorpusConfig = CorpusConfig()
    validation: ValidationConfig = ValidationConfig()
    split: SplitConfig = SplitConfig()
    audio: AudioConfig = AudioConfig()
    features: FeaturesConfig = FeaturesConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    vocoder: VocoderConfig = VocoderConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    registry: RegistryConfig = RegistryConfig()
    study: StudyConfig = StudyConfig()
    launch: LaunchConfig = LaunchConfig()
    docker: DockerConfig = DockerConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        pretrained = self.model.use_speaker_consistency_loss and self.model.use_pretrained_speaker_encoder
        if pretrained and self.features.speaker_encoder_model != "resemblyzer":
            raise ValueError(
                "model.use_speaker_consistency_loss embeds mels, which features.speaker_encoder_model "
                f"{self.features.speaker_encoder_model} cannot; set that to resemblyzer, or "
                "model.use_pretrained_speaker_encoder to false"
            )
        return self
