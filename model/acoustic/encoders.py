"""Encoders of reference clips: speaker embedding, style tokens and the variational latent."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acoustic.layers import LinearConv1d, sequence_mask

SPEAKER_LAYERS = 3
STRIDED_LAYERS = 6


class SpeakerProjection(nn.Module):
    """Learned projection of a pretrained encoder's speaker vectors to this model's speaker embeddings."""

    def __init__(self, vector_dim: int, embedding_dim: int):
        super().__init__()
        self.linear = nn.Linear(vector_dim, embedding_dim)

    def forward(self, vector: Tensor) -> Tensor:
        """Maps vectors (B, V) to unit-length embeddings (B, E)."""
        with torch.autocast(vector.device.type, enabled=False):
            return F.normalize(self.linear(vector.float()), dim=1)


class MelSpeakerEncoder(nn.Module):
    """Speaker encoder that is trained with the acoustic model, from mel spectrograms of any length.

    Residual convolutions, then attentive statistics pooling (arXiv:1803.10963): mean and standard deviation over time
    under learned weights, which averages out the content.
    """

    def __init__(self, n_mels: int, dim: int, embedding_dim: int):
        super().__init__()
        self.input = LinearConv1d(n_mels, dim, 5)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(SPEAKER_LAYERS))
        self.convolutions = nn.ModuleList(LinearConv1d(dim, dim, 3) for _ in range(SPEAKER_LAYERS))
        self.attention = nn.Sequential(nn.Linear(dim, dim // 2), nn.Tanh(), nn.Linear(dim // 2, 1, bias=False))
        self.output = nn.Linear(2 * dim, embedding_dim)

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Maps normalized mels (B, R, M) with lengths (B,) to unit-length embeddings (B, E); zeros for length 0."""
        with torch.autocast(mel.device.type, enabled=False):
            mask = sequence_mask(lengths, mel.shape[1])[:, :, None]  # (B, R, 1)
            x = self.input(mel.float() * mask)
            for norm, convolution in zip(self.norms, self.convolutions, strict=True):
                x = (x + F.relu(convolution(norm(x) * mask))) * mask
            weights = self.attention(x).masked_fill(~mask, -1e4).softmax(dim=1) * mask
            mean = (weights * x).sum(1)
            variance = (weights * (x - mean[:, None]).square()).sum(1)
            pooled = torch.cat((mean, (variance + 1e-6).sqrt()), dim=1)
            return F.normalize(self.output(pooled), dim=1) * (lengths > 0)[:, None]

    def embed_synthesis(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Computes `forward` with frozen weights: the speaker consistency loss trains the mels, not this encoder."""
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return torch.func.functional_call(self, frozen, (mel, lengths))


class ReferenceEncoder(nn.Module):
    """Reference encoder for style (arXiv:1803.09047): strided convolutions, then a recurrent layer.

    Layer norm instead of the published batch norm, so that neither padding nor the rest of the batch has an effect.
    """

    def __init__(self, n_mels: int, dim: int):
        super().__init__()
        channels = [1] + [max(dim // share, 1) for share in (4, 4, 2, 2, 1, 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1) for inputs, outputs in pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(outputs) for outputs in channels[1:])
        bands = n_mels
        for _ in range(STRIDED_LAYERS):
            bands = (bands + 1) // 2
        self.recurrent = nn.GRU(channels[-1] * bands, dim, batch_first=True)

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Maps normalized mels (B, R, M) with lengths (B,) to encodings (B, H) in -1 to 1; zeros for length 0."""
        x = mel[:, None] * sequence_mask(lengths, mel.shape[1])[:, None, :, None]
        steps = lengths
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(F.relu(convolution(x)).movedim(1, -1)).movedim(-1, 1)  # (B, C, R, M)
            steps = (steps + 1) // 2
            x = x * sequence_mask(steps, x.shape[2])[:, None, :, None]
        x = x.movedim(2, 1).flatten(2)  # (B, R / 64, C * M / 64)
        with torch.autocast(mel.device.type, enabled=False):
            outputs, _ = self.recurrent(x.float())
        last = (steps - 1).clamp(min=0)[:, None, None].expand(-1, 1, outputs.shape[2])
        return outputs.gather(1, last).squeeze(1) * (lengths > 0)[:, None]


class StyleTokens(nn.Module):
    """Global style tokens (arXiv:1803.09017): the reference weights learned tokens, per attention head."""

    def __init__(self, *, reference_dim: int, tokens: int, heads: int, dim: int):
        super().__init__()
        self.heads = heads
        self.tokens = nn.Parameter(torch.randn(tokens, dim // heads) * 0.5)
        self.query = nn.Linear(reference_dim, dim)
        self.key = nn.Linear(dim // heads, dim, bias=False)  # a bias would add the same to every score
        self.value = nn.Linear(dim // heads, dim)

    def forward(self, reference: Tensor) -> Tensor:
        """Returns the token weights (B, heads, tokens) of encoded references (B, H); those of a head sum to 1."""
        query = self.query(reference).unflatten(1, (self.heads, -1))  # (B, heads, D / heads)
        key = self.key(self.tokens.tanh()).unflatten(1, (self.heads, -1))  # (tokens, heads, D / heads)
        scores = torch.einsum("bhd,thd->bht", query, key) * query.shape[-1] ** -0.5
        return scores.float().softmax(dim=-1)

    def mix(self, weights: Tensor) -> Tensor:
        """Returns the style (B, gst_style_token_dim) of token weights (B, heads, tokens)."""
        value = self.value(self.tokens.tanh()).unflatten(1, (self.heads, -1))
        return torch.einsum("bht,thd->bhd", weights.to(value.dtype), value).flatten(1)


@dataclass
class Gaussian:
    """Independent normal distributions, with mean and log variance (B, L) each."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, temperature: float = 1.0) -> Tensor:
        """Draws a sample (B, L), whose standard deviation is multiplied by `temperature`."""
        return self.mean + temperature * (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)


def kl_divergence(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """Returns the Kullback-Leibler divergence of each dimension, (B, L) in nats, at least 0."""
    ratio = posterior.log_variance - prior.log_variance
    shift = (posterior.mean - prior.mean).square() * (-prior.log_variance).exp()
    return 0.5 * (ratio.exp() + shift - 1 - ratio)


class VariationalEncoder(nn.Module):
    """Models variation that text and speaker do not explain; its prior is conditioned on both (arXiv:1906.03402)."""

    def __init__(self, reference_dim: int, condition_dim: int, latent_dim: int):
        super().__init__()
        self.posterior = nn.Linear(reference_dim, 2 * latent_dim)
        self.prior = nn.Sequential(
            nn.Linear(condition_dim, condition_dim), nn.ReLU(), nn.Linear(condition_dim, 2 * latent_dim)
        )

    def encode_posterior(self, reference: Tensor) -> Gaussian:
        """Returns the distribution of the latent given encoded references (B, H), in float32."""
        return _gaussian(self.posterior(reference))

    def encode_prior(self, condition: Tensor) -> Gaussian:
        """Returns the distribution of the latent given text, speaker and language (B, D), in float32."""
        return _gaussian(self.prior(condition))


def _gaussian(parameters: Tensor) -> Gaussian:
    mean, log_variance = parameters.float().chunk(2, dim=-1)
    return Gaussian(mean, 4 * (log_variance / 4).tanh())  # bounds the standard deviation to e^-2 to e^2
