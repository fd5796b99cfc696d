"""Settings of the acoustic model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from model.config.schema.base import Positive, Section


class ModelConfig(Section):
    """Widths of the acoustic model; the presets of `sizes.yaml` fill them per `model_size`."""

    hidden_dim: Positive = 128
    num_heads: Positive = 2
    ffn_dim: Positive = 512
    encoder_layers: Positive = 3
    decoder_layers: Positive = 3
    frames_per_step: Annotated[int, Field(ge=1, le=4)] = 1
    """Mel frames that one decoder position makes; 2 halves the decoder's work (the reduction factor of Tacotron)."""
    kernel_size: Positive = 3
    """Kernel of the first convolution of each feed-forward block (odd)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    predictor_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout in the duration, pitch and energy predictors, which know minutes of speech by heart first of all."""
    aligner_dim: Positive = 80
    """Width of the space where text meets mel in the aligner."""
    aligner_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout on what the aligner sees of mel and text."""
    use_duration_predictor: Literal[True] = True
    """A parallel model speaks through its duration predictor: it cannot be switched off."""
    duration_predictor_layers: Positive = 3
    duration_predictor_hidden_dim: Positive = 256
    prosody_predictor_hidden_dim: Positive = 128
    enable_prosody_prediction: bool = True
    """Pitch and energy predictors and their embeddings."""
    speaker_embedding_dim: Literal[256] = 256
    """Width of the speaker vector the model is conditioned on."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                f"model.hidden_dim ({self.hidden_dim}) must be a multiple of 2 x model.num_heads ({self.num_heads}): "
                "rotary position embeddings turn pairs of channels in every head"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"model.kernel_size ({self.kernel_size}) must be odd to keep the length")
        return self
