"""Settings of the acoustic model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from model.config import Positive, Section


class ModelConfig(Section):
    """Architecture of the acoustic model; `presets/sizes.yaml` sets it by `model_size`."""

    hidden_dim: Positive = 128
    """Channels of encoder and decoder."""
    num_heads: Positive = 2
    """Attention heads per layer."""
    ffn_dim: Positive = 512
    """Channels between the two convolutions of a feed-forward block."""
    encoder_layers: Positive = 3
    """Transformer layers of the encoder."""
    decoder_layers: Positive = 3
    """Transformer layers of the decoder."""
    frames_per_step: Annotated[int, Field(ge=1, le=4)] = 2
    """Reduction factor: mel frames per decoder position; 2 halves the decoder's work."""
    kernel_size: Positive = 3
    """Kernel of the first convolution of each feed-forward block (odd)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout in encoder and decoder."""
    predictor_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout in the duration, pitch and energy predictors, which overfit first on small corpora."""
    predictors_read: Literal["encoding", "embedding"] = "encoding"
    """Input of the predictors: the encoder's output, or the embeddings of symbols and speaker alone. On minutes of
    speech the encoder overfits to the training sentences, and so do predictors that read its output."""
    predictor_input_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the input of the predictors."""
    aligner_dim: Positive = 80
    """Width of the space in which the aligner compares text and mel."""
    aligner_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout on the aligner's inputs."""
    use_location_attention: bool = False
    """Location-sensitive alignment: adds a bounded term computed from the alignment before each frame."""
    location_iterations: Positive = 2
    """Parallel refinements of the location term in training; alignment of recordings uses twice as many."""
    use_forward_attention: bool = False
    """Compute soft alignments by a hidden Markov model with learned transitions instead of frame by frame."""
    forward_attention_mask: bool = False
    """With forward attention, in alignments of recordings: a frame advances by at most three tokens and never goes
    back."""
    use_duration_predictor: Literal[True] = True
    """Always true: a parallel model cannot synthesize without its duration predictor."""
    duration_predictor_layers: Positive = 3
    """Convolutions of the duration predictor."""
    duration_predictor_hidden_dim: Positive = 256
    """Channels of the duration predictor."""
    prosody_predictor_hidden_dim: Positive = 128
    """Channels of the pitch and energy predictors."""
    enable_prosody_prediction: bool = True
    """Predict pitch and energy and condition the decoder on them."""
    speaker_embedding_dim: Literal[256, 512] = 256
    """Width of the speaker embedding in the model: 256 is standard, 512 high quality."""
    use_pretrained_speaker_encoder: bool = True
    """Embed speakers with `features.speaker_encoder_model`; otherwise with an encoder of mels that is trained
    jointly."""
    speaker_encoder_dim: Positive = 128
    """Width of the jointly trained speaker encoder."""
    use_speaker_consistency_loss: bool = False
    """Loss on the distance between the speaker embeddings of predicted and recorded mels, by Resemblyzer or by the
    jointly trained encoder."""
    reference_encoder_dim: Positive = 128
    """Width of the encoding of a reference clip, from which style tokens and latent are computed."""
    enable_gst: bool = False
    """Global style tokens: attention over learned styles, queried by the reference clip."""
    gst_num_style_tokens: Annotated[int, Field(ge=2)] = 10
    """10 as published; 12 is a usual alternative."""
    gst_num_heads: Positive = 4
    """Heads of the attention to the style tokens."""
    gst_style_token_dim: Positive = 128
    """Width of the style embedding."""
    use_variational_encoder: bool = False
    """A latent variable for variation that text and speaker do not explain; its prior is conditioned on both."""
    vae_latent_dim: Positive = 16
    """Width of the latent variable."""

    @property
    def has_style(self) -> bool:
        """Whether the model takes the style of a reference clip, by style tokens, a latent or both."""
        return self.enable_gst or self.use_variational_encoder

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.forward_attention_mask and not self.use_forward_attention:
            raise ValueError("model.forward_attention_mask requires model.use_forward_attention; set it")
        if self.gst_style_token_dim % self.gst_num_heads:
            raise ValueError(
                f"model.gst_style_token_dim ({self.gst_style_token_dim}) must be a multiple of model.gst_num_heads "
                f"({self.gst_num_heads})"
            )
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                f"model.hidden_dim ({self.hidden_dim}) must be a multiple of 2 x model.num_heads ({self.num_heads}): "
                "rotary position embeddings rotate pairs of channels in every head"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"model.kernel_size ({self.kernel_size}) must be odd to keep the length")
        return self
