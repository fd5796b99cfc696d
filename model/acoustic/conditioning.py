"""Everything that conditions the speech besides its text: speaker, language, style tokens and latent, as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model.acoustic.batch import REFERENCE_FRAMES, pad_reference
from model.acoustic.encoders import (
    Gaussian,
    MelSpeakerEncoder,
    ReferenceEncoder,
    SpeakerProjection,
    StyleTokens,
    VariationalEncoder,
)
from model.acoustic.layers import sequence_mask
from model.config.acoustic import ModelConfig
from model.errors import MyXTTSError


class StyleError(MyXTTSError):
    """A style that this model cannot take, or needs and was not given; the message says which."""


@dataclass
class Reference:
    """Recorded speech that lends its speaker and style.

    Attributes:
        mel: (B, R, M) raw log-mel.
        lengths: (B,) frames; 0 where a clip has no reference.
    """

    mel: Tensor
    lengths: Tensor

    @classmethod
    def from_recordings(cls, mels: Sequence[np.ndarray]) -> Reference:
        """Recordings (S, M) of any length -> pieces as long as the references of training, each a row."""
        pieces = [mel[i : i + REFERENCE_FRAMES] for mel in mels for i in range(0, len(mel), REFERENCE_FRAMES)]
        padded = torch.from_numpy(np.stack([pad_reference(piece) for piece in pieces]))
        return cls(padded, torch.tensor([len(piece) for piece in pieces]))


@dataclass
class ReferenceEncoding:
    """What a model heard in recordings of one speaker; None for what it has no part to hear with.

    Attributes:
        speaker: (1, E) unit vector of its own speaker encoder.
        token_weights: (1, heads, tokens).
        latent: (1, L) posterior mean.
    """

    speaker: Tensor | None = None
    token_weights: Tensor | None = None
    latent: Tensor | None = None


@dataclass
class Style:
    """How to speak, at synthesis: style tokens from weights or else from the reference, and likewise the latent.

    Attributes:
        reference: To listen to.
        token_weights: (B, heads, tokens), each head's summing to 1.
        latent: (B, L).
        temperature: Without a latent and a reference: spread of the sample around the prior's mean; 0 is the mean.
    """

    reference: Reference | None = None
    token_weights: Tensor | None = None
    latent: Tensor | None = None
    temperature: float = 0.0


@dataclass
class Conditions:
    """What one batch is conditioned on.

    Attributes:
        vector: (B, D) the sum of all, for the adaptive layer norms.
        speaker: (B, E) unit vectors.
        token_weights: (B, heads, tokens); None without style tokens.
        posterior, prior: Of the latent; None without a variational encoder.
    """

    vector: Tensor
    speaker: Tensor
    token_weights: Tensor | None = None
    posterior: Gaussian | None = None
    prior: Gaussian | None = None


class Conditioning(nn.Module):
    """Speaker + language + style tokens + latent -> the condition of a batch."""

    def __init__(
        self,
        config: ModelConfig,
        vector_dim: int,
        num_languages: int,
        n_mels: int,
        mel_mean: float,
        mel_std: float,
    ):
        super().__init__()
        self.config, self.mel_mean, self.mel_std = config, mel_mean, mel_std
        dim, width = config.hidden_dim, config.speaker_embedding_dim
        if config.use_pretrained_speaker_encoder:
            self.speaker = SpeakerProjection(vector_dim, width)
        else:
            self.speaker = MelSpeakerEncoder(n_mels, config.speaker_encoder_dim, width)
        self.speaker_to_condition = nn.Linear(width, dim)
        self.language_embedding = nn.Embedding(num_languages, dim)
        nn.init.normal_(self.language_embedding.weight, std=dim**-0.5)
        if config.has_style:
            self.reference_encoder = ReferenceEncoder(n_mels, config.reference_encoder_dim)
        if config.enable_gst:
            self.style_tokens = StyleTokens(
                config.reference_encoder_dim,
                config.gst_num_style_tokens,
                config.gst_num_heads,
                config.gst_style_token_dim,
            )
            self.style_to_condition = nn.Linear(config.gst_style_token_dim, dim)
        if config.use_variational_encoder:
            self.variational = VariationalEncoder(config.reference_encoder_dim, dim, config.vae_latent_dim)
            self.latent_to_condition = nn.Linear(config.vae_latent_dim, dim)

    def embed_speaker(self, vector: Tensor, reference: Reference | None) -> Tensor:
        """Who speaks, (B, E) unit vectors: from the pretrained `vector` (B, V), or by our own encoder.

        Our own encoder listens to the reference; without one `vector` is taken for an embedding that it made before.
        """
        if self.config.use_pretrained_speaker_encoder:
            return self.speaker(vector)
        if reference is None:
            if vector.shape[1] != self.config.speaker_embedding_dim:
                raise StyleError(
                    f"this model was trained with its own speaker encoder, but was given a vector of {vector.shape[1]} "
                    f"values, not an embedding of {self.config.speaker_embedding_dim}; give a reference clip"
                )
            return vector
        return self.speaker(self.normalise(reference), reference.lengths)

    def embed_synthesis(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Who speaks in a synthesised mel (B, S, M); only the mel gets gradients. Needs our own encoder."""
        return self.speaker.embed_synthesis(self.normalise(Reference(mel, lengths)), lengths)

    @torch.no_grad()
    def encode_reference(self, reference: Reference) -> ReferenceEncoding:
        """One impression, the mean over the rows of a reference weighted by their frames."""
        heard, normalised = ReferenceEncoding(), self.normalise(reference)
        share = (reference.lengths / reference.lengths.sum())[:, None]  # (B, 1)
        if not self.config.use_pretrained_speaker_encoder:
            mean = (self.speaker(normalised, reference.lengths) * share).sum(0, keepdim=True)
            heard.speaker = nn.functional.normalize(mean, dim=1)
        if self.config.has_style:
            encoded = self.reference_encoder(normalised, reference.lengths)
            if self.config.enable_gst:
                heard.token_weights = (self.style_tokens(encoded)[1] * share[:, :, None]).sum(0, keepdim=True)
            if self.config.use_variational_encoder:
                heard.latent = (self.variational.posterior_of(encoded).mean * share).sum(0, keepdim=True)
        return heard

    def normalise(self, reference: Reference) -> Tensor:
        """Normalised mel, zero in the padding."""
        mask = sequence_mask(reference.lengths, reference.mel.shape[1])
        return (reference.mel - self.mel_mean) / self.mel_std * mask[:, :, None]

    def keeping_the_voice(self, vector: Tensor, language: Tensor, own_language: Tensor) -> Tensor:
        """The condition (B, D) of a text in `language` as the speakers would sound in their own language, (B,) each.

        The embedding of a language knows the voices that it was learned from, and makes others sound like them.
        """
        return vector - self.language_embedding(language) + self.language_embedding(own_language)

    def forward(self, text: Tensor, speaker: Tensor, language: Tensor, style: Style) -> Conditions:
        """The conditions of a batch.

        Args:
            text: (B, D) mean token embedding; the latent's prior depends on it.
            speaker: (B, E) of `embed_speaker`.
            language: (B,).
            style: In training with the reference alone; the latent is then sampled, in evaluation its mean is taken.
        """
        vector = self.speaker_to_condition(speaker) + self.language_embedding(language)
        conditions = Conditions(vector, speaker)
        heard = None
        if style.reference is not None and self.config.has_style:
            heard = self.reference_encoder(self.normalise(style.reference), style.reference.lengths)
        if self.config.enable_gst:
            conditions.vector = conditions.vector + self._tokens(style, heard, conditions)
        if self.config.use_variational_encoder:
            conditions.vector = conditions.vector + self._latent(style, heard, vector + text, conditions)
        return conditions

    def _tokens(self, style: Style, heard: Tensor | None, conditions: Conditions) -> Tensor:
        if style.token_weights is not None:
            wanted = (self.config.gst_num_heads, self.config.gst_num_style_tokens)
            if style.token_weights.shape[1:] != wanted:
                raise StyleError(
                    f"style token weights of shape {tuple(style.token_weights.shape[1:])}, but this model has "
                    f"{wanted[0]} heads x {wanted[1]} tokens"
                )
            conditions.token_weights = style.token_weights
            mixed = self.style_tokens.mix(style.token_weights)
        elif heard is not None:
            mixed, conditions.token_weights = self.style_tokens(heard)
        else:
            raise StyleError("this model speaks in a style: give a reference clip or weights of its style tokens")
        return self.style_to_condition(mixed)

    def _latent(self, style: Style, heard: Tensor | None, condition: Tensor, conditions: Conditions) -> Tensor:
        conditions.prior = self.variational.prior_of(condition)
        if style.latent is not None:
            if style.latent.shape[1] != self.config.vae_latent_dim:
                raise StyleError(
                    f"a latent of {style.latent.shape[1]} values, but this model has {self.config.vae_latent_dim}"
                )
            latent = style.latent
        elif heard is None:
            latent = conditions.prior.sample(style.temperature) if style.temperature else conditions.prior.mean
        else:
            conditions.posterior = self.variational.posterior_of(heard)
            latent = conditions.posterior.sample() if self.training else conditions.posterior.mean
        return self.latent_to_condition(latent.to(self.latent_to_condition.weight.dtype))
