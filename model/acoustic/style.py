"""Style from a reference clip: the encoder that listens to it, global style tokens, and a variational latent.

Shapes: B batch, R reference frames, M mel bands, H width of the reference encoding, L latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acoustic.layers import length_mask

STRIDED_LAYERS = 6


class ReferenceEncoder(nn.Module):
    """A mel spectrogram of any length -> one vector (arXiv:1803.09047): strided convolutions, then a recurrent layer.

    Each position is normalised over its channels alone, so that neither padding nor the other clips of a batch matter.
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
        """Normalised mel (B, R, M), lengths (B,) -> (B, H) in -1 to 1; zeros where there is no reference (length 0)."""
        x = mel[:, None] * length_mask(lengths, mel.shape[1])[:, None, :, None]
        steps = lengths
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(F.relu(convolution(x)).movedim(1, -1)).movedim(-1, 1)  # (B, C, R, M)
            steps = (steps + 1) // 2
            x = x * length_mask(steps, x.shape[2])[:, None, :, None]
        x = x.movedim(2, 1).flatten(2)  # (B, R / 64, C * M / 64)
        with torch.autocast(mel.device.type, enabled=False):
            outputs, _ = self.recurrent(x.float())
        last = (steps - 1).clamp(min=0)[:, None, None].expand(-1, 1, outputs.shape[2])
        return outputs.gather(1, last).squeeze(1) * (lengths > 0)[:, None]


class StyleTokens(nn.Module):
    """Global style tokens (arXiv:1803.09017): a reference chooses, per attention head, a mixture of learned tokens."""

    def __init__(self, reference_dim: int, tokens: int, heads: int, dim: int):
        super().__init__()
        self.heads = heads
        self.tokens = nn.Parameter(torch.randn(tokens, dim // heads) * 0.5)
        self.query = nn.Linear(reference_dim, dim)
        self.key = nn.Linear(dim // heads, dim, bias=False)  # the same for every token, a bias would do nothing
        self.value = nn.Linear(dim // heads, dim)

    def forward(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Reference (B, H) -> style (B, gst_style_token_dim) and the weights that made it (B, heads, tokens)."""
        query = self.query(reference).unflatten(1, (self.heads, -1))  # (B, heads, D / heads)
        key = self.key(self.tokens.tanh()).unflatten(1, (self.heads, -1))  # (tokens, heads, D / heads)
        scores = torch.einsum("bhd,thd->bht", query, key) * query.shape[-1] ** -0.5
        weights = scores.float().softmax(dim=-1)
        return self.mix(weights), weights

    def mix(self, weights: Tensor) -> Tensor:
        """Weights (B, heads, tokens), each head's summing to 1 -> style (B, gst_style_token_dim)."""
        value = self.value(self.tokens.tanh()).unflatten(1, (self.heads, -1))
        return torch.einsum("bht,thd->bhd", weights.to(value.dtype), value).flatten(1)


@dataclass
class Gaussian:
    """Independent normal distributions: mean and log variance, (B, L) each."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, temperature: float = 1.0) -> Tensor:
        """(B, L); `temperature` scales the deviation from the mean."""
        return self.mean + temperature * (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)


def divergence(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """Kullback-Leibler divergence of each dimension in nats (B, L), from 0."""
    ratio = posterior.log_variance - prior.log_variance
    shift = (posterior.mean - prior.mean).square() * (-prior.log_variance).exp()
    return 0.5 * (ratio.exp() + shift - 1 - ratio)


class VariationalEncoder(nn.Module):
    """A latent for what neither text nor speaker tells, with a prior that both condition (after arXiv:1906.03402)."""

    def __init__(self, reference_dim: int, condition_dim: int, latent_dim: int):
        super().__init__()
        self.posterior = nn.Linear(reference_dim, 2 * latent_dim)
        self.prior = nn.Sequential(
            nn.Linear(condition_dim, condition_dim), nn.ReLU(), nn.Linear(condition_dim, 2 * latent_dim)
        )

    def posterior_of(self, reference: Tensor) -> Gaussian:
        """What a reference (B, H) says of the latent, in float32."""
        return _gaussian(self.posterior(reference))

    def prior_of(self, condition: Tensor) -> Gaussian:
        """What text, speaker and language (B, D) let expect of it, in float32."""
        return _gaussian(self.prior(condition))


def _gaussian(parameters: Tensor) -> Gaussian:
    mean, log_variance = parameters.float().chunk(2, dim=-1)
    return Gaussian(mean, 4 * (log_variance / 4).tanh())  # the deviation stays between e^-2 and e^2
