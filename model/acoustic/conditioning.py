"""Conditioning of the acoustic model on speaker, language, style tokens and latent, combined in one vector."""

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
    """A style or speaker that does not fit the model, or that the model needs and was not given."""


@dataclass
class Reference:
    """Reference clips, whose speaker and style the speech takes on.

    Attributes:
        mel: (B, R, M) unnormalized log-mel.
        lengths: (B,) frames; 0 where there is no reference.
    """

    mel: Tensor
    lengths: Tensor

    @classmethod
    def from_recordings(cls, mels: Sequence[np.ndarray]) -> Reference:
        """Cuts recordings (S, M) of any length into rows of at most `REFERENCE_FRAMES` frames, as in training."""
        pieces = [mel[i : i + REFERENCE_FRAMES] for mel in mels for i in range(0, len(mel), REFERENCE_FRAMES)]
        padded = torch.from_numpy(np.stack([pad_reference(piece) for piece in pieces]))
        return cls(padded, torch.tensor([len(piece) for piece in pieces]))


@dataclass(kw_only=True)
class ReferenceEncoding:
    """Speaker and style encoded from recordings of one speaker; None where the model lacks the encoder.

    Attributes:
        speaker: (1, E) unit-length embedding by the model's own speaker encoder.
        token_weights: (1, heads, tokens) style token weights.
        latent: (1, L) posterior mean.
    """

    speaker: Tensor | None = None
    token_weights: Tensor | None = None
    latent: Tensor | None = None


@dataclass
class Style:
    """Speaking style of a synthesis. Explicit token weights and latents take precedence over the reference.

    Attributes:
        reference: Reference clips that style tokens and latent are encoded from.
        token_weights: (B, heads, tokens); the weights of each head sum to 1.
        latent: (B, L).
        temperature: Scale of the deviation from the prior's mean if there is neither latent nor reference; 0 takes the
            mean.
    """

    reference: Reference | None = None
    token_weights: Tensor | None = None
    latent: Tensor | None = None
    temperature: float = 0.0


@dataclass(kw_only=True)
class Conditions:
    """The conditions of one batch.

    Attributes:
        vector: (B, D) the sum of all conditions, for the adaptive layer norms.
        speaker: (B, E) unit-length speaker embeddings.
        token_weights: (B, heads, tokens); None without style tokens.
        posterior: Distribution of the latent given the reference; None without a variational encoder or a reference.
        prior: Distribution of the latent given text, speaker and language; None without a variational encoder.
    """

    vector: Tensor
    speaker: Tensor
    token_weights: Tensor | None = None
    posterior: Gaussian | None = None
    prior: Gaussian | None = None


class Conditioning(nn.Module):
    """Computes the condition vector of a batch from speaker, language, style tokens and latent."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        speaker_vector_dim: int,
        num_languages: int,
        n_mels: int,
        mel_mean: float,
        mel_std: float,
    ):
        super().__init__()
        self.config, self.mel_mean, self.mel_std = config, mel_mean, mel_std
        dim, width = config.hidden_dim, config.speaker_embedding_dim
        self.speaker: SpeakerProjection | MelSpeakerEncoder
        if config.use_pretrained_speaker_encoder:
            self.speaker = SpeakerProjection(speaker_vector_dim, width)
        else:
            self.speaker = MelSpeakerEncoder(n_mels, config.speaker_encoder_dim, width)
        self.speaker_to_condition = nn.Linear(width, dim)
        self.language_embedding = nn.Embedding(num_languages, dim)
        nn.init.normal_(self.language_embedding.weight, std=dim**-0.5)
        if config.has_style:
            self.reference_encoder = ReferenceEncoder(n_mels, config.reference_encoder_dim)
        if config.enable_gst:
            self.style_tokens = StyleTokens(
                reference_dim=config.reference_encoder_dim,
                tokens=config.gst_num_style_tokens,
                heads=config.gst_num_heads,
                dim=config.gst_style_token_dim,
            )
            self.style_to_condition = nn.Linear(config.gst_style_token_dim, dim)
        if config.use_variational_encoder:
            self.variational = VariationalEncoder(config.reference_encoder_dim, dim, config.vae_latent_dim)
            self.latent_to_condition = nn.Linear(config.vae_latent_dim, dim)

    def forward(self, text: Tensor, speaker: Tensor, language: Tensor, style: Style) -> Conditions:
        """Returns the conditions of a batch.

        Args:
            text: (B, D) mean token embedding, which conditions the latent's prior.
            speaker: (B, E) from `embed_speaker`.
            language: (B,) int64.
            style: Training passes only a reference. The latent is then sampled; in evaluation it is the mean.

        Raises:
            StyleError: the style does not fit the model.
        """
        base = self.speaker_to_condition(speaker) + self.language_embedding(language)
        conditions = Conditions(vector=base, speaker=speaker)
        encoding = None
        if style.reference is not None and self.config.has_style:
            encoding = self.reference_encoder(self.normalize(style.reference), style.reference.lengths)
        if self.config.enable_gst:
            conditions.token_weights = self._token_weights(style, encoding)
            mixture = self.style_tokens.mix(conditions.token_weights)
            conditions.vector = conditions.vector + self.style_to_condition(mixture)
        if self.config.use_variational_encoder:
            conditions.prior = self.variational.encode_prior(base + text)
            if style.latent is None and encoding is not None:
                conditions.posterior = self.variational.encode_posterior(encoding)
            latent = self._latent(style, conditions.prior, conditions.posterior)
            latent = latent.to(self.latent_to_condition.weight.dtype)
            conditions.vector = conditions.vector + self.latent_to_condition(latent)
        return conditions

    def embed_speaker(self, vector: Tensor, reference: Reference | None) -> Tensor:
        """Returns unit-length speaker embeddings (B, E).

        Args:
            vector: (B, V) from the pretrained encoder. A model with its own speaker encoder ignores it if there is a
                reference, and otherwise takes it for an embedding (B, E) that this method returned before.
            reference: Encoded by the model's own speaker encoder.

        Raises:
            StyleError: `vector` is no embedding by the model's own speaker encoder, and there is no reference.
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
        return self.speaker(self.normalize(reference), reference.lengths)

    def embed_synthesis(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Returns speaker embeddings (B, E) of synthesized mels (B, S, M), with gradients for the mels only.

        Requires the model's own speaker encoder.
        """
        assert isinstance(self.speaker, MelSpeakerEncoder)  # the configuration allows the loss with no other encoder
        return self.speaker.embed_synthesis(self.normalize(Reference(mel, lengths)), lengths)

    @torch.no_grad()
    def encode_reference(self, reference: Reference) -> ReferenceEncoding:
        """Returns one encoding: the mean over the rows of a reference, weighted by their lengths."""
        encoding, mel = ReferenceEncoding(), self.normalize(reference)
        weights = (reference.lengths / reference.lengths.sum())[:, None]  # (B, 1)
        if not self.config.use_pretrained_speaker_encoder:
            mean = (self.speaker(mel, reference.lengths) * weights).sum(0, keepdim=True)
            encoding.speaker = nn.functional.normalize(mean, dim=1)
        if self.config.has_style:
            style = self.reference_encoder(mel, reference.lengths)
            if self.config.enable_gst:
                encoding.token_weights = (self.style_tokens(style) * weights[:, :, None]).sum(0, keepdim=True)
            if self.config.use_variational_encoder:
                means = self.variational.encode_posterior(style).mean
                encoding.latent = (means * weights).sum(0, keepdim=True)
        return encoding

    def normalize(self, reference: Reference) -> Tensor:
        """Returns the normalized mel (B, R, M), zero in the padding."""
        mask = sequence_mask(reference.lengths, reference.mel.shape[1])
        return (reference.mel - self.mel_mean) / self.mel_std * mask[:, :, None]

    def replace_language(self, vector: Tensor, language: Tensor, speaker_language: Tensor) -> Tensor:
        """Replaces the language embedding in condition vectors (B, D) by that of the speakers' language, (B,) each.

        A language embedding also encodes the voices that it was trained on, and makes other voices resemble them.
        """
        return vector - self.language_embedding(language) + self.language_embedding(speaker_language)

    def _token_weights(self, style: Style, encoding: Tensor | None) -> Tensor:
        """Returns the style token weights (B, heads, tokens), given or computed from the encoded reference (B, H)."""
        if style.token_weights is not None:
            heads, tokens = self.config.gst_num_heads, self.config.gst_num_style_tokens
            if style.token_weights.shape[1:] != (heads, tokens):
                raise StyleError(
                    f"style token weights of shape {tuple(style.token_weights.shape[1:])}, but this model has "
                    f"{heads} heads x {tokens} tokens"
                )
            return style.token_weights
        if encoding is None:
            raise StyleError("this model has style tokens: give a reference clip or style token weights")
        return self.style_tokens(encoding)

    def _latent(self, style: Style, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
        """Returns the latent (B, L): given, from the posterior, or else from the prior."""
        if style.latent is not None:
            if style.latent.shape[1] != self.config.vae_latent_dim:
                raise StyleError(
                    f"a latent of {style.latent.shape[1]} values, but this model has {self.config.vae_latent_dim}"
                )
            return style.latent
        if posterior is not None:
            return posterior.sample() if self.training else posterior.mean
        return prior.sample(style.temperature) if style.temperature else prior.mean
