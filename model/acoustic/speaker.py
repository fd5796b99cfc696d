"""Who speaks: from a pretrained encoder's vector, or by an encoder trained along with the model, from a reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acoustic.layers import Conv1d, length_mask

LAYERS = 3


class SpeakerProjection(nn.Module):
    """A pretrained encoder's vector in the space where this model tells its speakers apart.

    (B, V) unit vectors -> (B, E) unit vectors.
    """

    def __init__(self, vector_dim: int, embedding_dim: int):
        super().__init__()
        self.linear = nn.Linear(vector_dim, embedding_dim)

    def forward(self, vector: Tensor) -> Tensor:
        with torch.autocast(vector.device.type, enabled=False):
            return F.normalize(self.linear(vector.float()), dim=1)


class MelSpeakerEncoder(nn.Module):
    """A mel spectrogram of any length -> a unit vector that says who speaks.

    Residual convolutions, then mean and deviation over time under learned weights (attentive statistics pooling,
    arXiv:1803.10963): what is said averages out.
    """

    def __init__(self, n_mels: int, dim: int, embedding_dim: int):
        super().__init__()
        self.input = Conv1d(n_mels, dim, 5)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(LAYERS))
        self.convolutions = nn.ModuleList(Conv1d(dim, dim, 3) for _ in range(LAYERS))
        self.attention = nn.Sequential(nn.Linear(dim, dim // 2), nn.Tanh(), nn.Linear(dim // 2, 1, bias=False))
        self.output = nn.Linear(2 * dim, embedding_dim)

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Normalised mel (B, R, M), lengths (B,) -> (B, E); zeros where there is no reference (length 0)."""
        with torch.autocast(mel.device.type, enabled=False):
            mask = length_mask(lengths, mel.shape[1])[:, :, None]  # (B, R, 1)
            x = self.input(mel.float() * mask)
            for norm, convolution in zip(self.norms, self.convolutions, strict=True):
                x = (x + F.relu(convolution(norm(x) * mask))) * mask
            weights = self.attention(x).masked_fill(~mask, -1e4).softmax(dim=1) * mask
            mean = (weights * x).sum(1)
            variance = (weights * (x - mean[:, None]).square()).sum(1)
            pooled = torch.cat((mean, (variance + 1e-6).sqrt()), dim=1)
            return F.normalize(self.output(pooled), dim=1) * (lengths > 0)[:, None]

    def listen(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """As `forward`, but gradients reach the mel alone: a critic must not learn to be easily pleased."""
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return torch.func.functional_call(self, frozen, (mel, lengths))
