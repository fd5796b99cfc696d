"""Settings of the acoustic model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from model.config import Positive, Section


class ModelConfig(Section):
    """Widths of the acoustic model; the presets of `presets/sizes.yaml` fill them per `model_size`."""

    hidden_dim: Positive = 128
    num_heads: Positive = 2
    ffn_dim: Positive = 512
    encoder_layers: Positive = 3
    decoder_layers: Positive = 3
    frames_per_step: Annotated[int, Field(ge=1, le=4)] = 2
    """Mel frames that one decoder position makes; 2 halves the decoder's work (the reduction factor of Tacotron)."""
    kernel_size: Positive = 3
    """Kernel of the first convolution of each feed-forward block (odd)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    predictor_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout in the duration, pitch and energy predictors, which know minutes of speech by heart first of all."""
    predictors_read: Literal["encoding", "embedding"] = "encoding"
    """What the predictors start from: the encoder's output, with the whole sentence in it, or the plain symbols and the
    speaker. The encoder soon knows minutes of training sentences by heart; what reads it then learns little else."""
    predictor_input_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the predictors' inputs that are hidden in training."""
    aligner_dim: Positive = 80
    """Width of the space where text meets mel in the aligner."""
    aligner_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout on what the aligner sees of mel and text."""
    use_location_attention: bool = False
    """The aligner also looks where it was: a bounded term from the alignment before each frame (location-sensitive)."""
    location_iterations: Positive = 2
    """Parallel refinements of the location term in training; alignments of recordings use twice as many."""
    use_forward_attention: bool = False
    """Soft alignments are those of the hidden Markov model with learned transitions, not of each frame by itself."""
    forward_attention_mask: bool = False
    """With forward attention, in alignments of recordings: a frame may look at most three tokens ahead, none back."""
    use_duration_predictor: Literal[True] = True
    """A parallel model speaks through its duration predictor: it cannot be switched off."""
    duration_predictor_layers: Positive = 3
    duration_predictor_hidden_dim: Positive = 256
    prosody_predictor_hidden_dim: Positive = 128
    enable_prosody_prediction: bool = True
    """Pitch and energy predictors and their embeddings."""
    speaker_embedding_dim: Literal[256, 512] = 256
    """Width of the space where the model tells speakers apart: 256 is standard, 512 high quality."""
    use_pretrained_speaker_encoder: bool = True
    """The speaker comes from `features.speaker_encoder_model`; otherwise from an encoder trained along, on mels."""
    speaker_encoder_dim: Positive = 128
    """Width of the encoder that is trained along."""
    use_speaker_consistency_loss: bool = False
    """Synthesised mels must sound like their speaker to the encoder that is trained along."""
    reference_encoder_dim: Positive = 128
    """Width of what the reference encoder hears of a reference clip; style tokens and latent rest on it."""
    enable_gst: bool = False
    """Global style tokens: the reference chooses a mixture of learned styles."""
    gst_num_style_tokens: Annotated[int, Field(ge=2)] = 10
    """10 is published, 12 advised."""
    gst_num_heads: Positive = 4
    gst_style_token_dim: Positive = 128
    """Width of the style that the tokens mix."""
    use_variational_encoder: bool = False
    """A latent variable for what neither text nor speaker says, with a prior that both condition."""
    vae_latent_dim: Positive = 16

    @property
    def has_style(self) -> bool:
        """Whether a reference lends a style, by style tokens, a latent or both."""
        return self.enable_gst or self.use_variational_encoder

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.forward_attention_mask and not self.use_forward_attention:
            raise ValueError("model.forward_attention_mask acts on forward attention; set model.use_forward_attention")
        if self.gst_style_token_dim % self.gst_num_heads:
            raise ValueError(
                f"model.gst_style_token_dim ({self.gst_style_token_dim}) must be a multiple of model.gst_num_heads "
                f"({self.gst_num_heads})"
            )
        if self.use_speaker_consistency_loss and self.use_pretrained_speaker_encoder:
            raise ValueError(
                "model.use_speaker_consistency_loss listens to mels, which pretrained speaker encoders cannot; "
                "set model.use_pretrained_speaker_encoder to false"
            )
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                f"model.hidden_dim ({self.hidden_dim}) must be a multiple of 2 x model.num_heads ({self.num_heads}): "
                "rotary position embeddings turn pairs of channels in every head"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"model.kernel_size ({self.kernel_size}) must be odd to keep the length")
        return self
