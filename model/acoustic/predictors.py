"""Predictors of what the text does not say: how long each token lasts, how high and how loud it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acoustic.layers import BidirectionalLSTM, Conv1d, Dropout, apply_mask, sequence_mask


class _ConvStack(nn.Module):
    """(Convolution, ReLU, layer norm, dropout) x layers; padding stays zero, so that no kernel leaks it."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float):
        super().__init__()
        self.convolutions = nn.ModuleList(Conv1d(inputs if i == 0 else dim, dim, 3) for i in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = apply_mask(self.dropout(norm(F.relu(convolution(x)))), mask)
        return x


class DurationPredictor(nn.Module):
    """Frames per token: convolutions, a bidirectional recurrent layer, softplus."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float):
        super().__init__()
        self.stack = _ConvStack(inputs, dim, layers, dropout)
        self.recurrent = BidirectionalLSTM(dim, dim // 2)
        self.output = nn.Linear(dim // 2 * 2, 1)
        nn.init.constant_(self.output.bias, 1.8)  # softplus(1.8) = log1p(6 frames): a usual phone at the start

    def forward(self, text: Tensor, token_lengths: Tensor | None) -> Tensor:
        """Encoded text (B, T, D) -> (B, T) log(1 + frames), at least 0; 0 at padding. No lengths: no padding."""
        with torch.autocast(text.device.type, enabled=False):
            mask = None if token_lengths is None else sequence_mask(token_lengths, text.shape[1])
            x = self.recurrent(self.stack(text.float(), mask), token_lengths)
            return apply_mask(F.softplus(self.output(x).squeeze(2)), mask)


class ProsodyPredictor(nn.Module):
    """One value per token (normalised pitch or energy) from the encoded text (FastPitch, arXiv:2006.06873)."""

    def __init__(self, inputs: int, dim: int, dropout: float):
        super().__init__()
        self.stack = _ConvStack(inputs, dim, 2, dropout)
        self.output = nn.Linear(dim, 1)

    def forward(self, text: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D), (B, T) bool or None -> (B, T), 0 at padding."""
        return apply_mask(self.output(self.stack(text, mask)).squeeze(2).float(), mask)


def average_over_tokens(values: Tensor, durations: Tensor, valid: Tensor) -> Tensor:
    """Mean of frame values over each token's valid frames.

    Args:
        values: (B, S).
        durations: (B, T) int64 frames per token.
        valid: (B, S) bool; frames that count (voiced ones for pitch).

    Returns:
        (B, T); 0 where a token has no valid frame.
    """
    ends = durations.cumsum(1)
    weighted = F.pad((values * valid).double().cumsum(1), (1, 0))  # (B, S + 1): differences of it are sums
    counts = F.pad(valid.double().cumsum(1), (1, 0))
    starts = ends - durations
    sums = weighted.gather(1, ends) - weighted.gather(1, starts)
    number = counts.gather(1, ends) - counts.gather(1, starts)
    return (sums / number.clamp(min=1.0)).to(values.dtype)
