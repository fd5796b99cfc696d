"""Predictors of prosody per token: duration, pitch and energy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acoustic.layers import BidirectionalLSTM, Dropout, LinearConv1d, apply_mask, sequence_mask


class _ConvStack(nn.Module):
    """Layers of convolution, ReLU, layer norm and dropout; padding stays zero."""

    def __init__(self, *, inputs: int, dim: int, layers: int, dropout: float):
        super().__init__()
        self.convolutions = nn.ModuleList(LinearConv1d(inputs if i == 0 else dim, dim, 3) for i in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = apply_mask(self.dropout(norm(F.relu(convolution(x)))), mask)
        return x


class DurationPredictor(nn.Module):
    """Predicts frames per token with convolutions, a bidirectional LSTM and a softplus."""

    def __init__(self, *, inputs: int, dim: int, layers: int, dropout: float):
        super().__init__()
        self.stack = _ConvStack(inputs=inputs, dim=dim, layers=layers, dropout=dropout)
        self.recurrent = BidirectionalLSTM(dim, dim // 2)
        self.output = nn.Linear(dim // 2 * 2, 1)
        nn.init.constant_(self.output.bias, 1.8)  # softplus(1.8) = log1p(6 frames), a typical phone

    def forward(self, text: Tensor, token_lengths: Tensor | None) -> Tensor:
        """Predicts log(1 + frames) per token, (B, T), from text (B, T, D); lengths (B,), or None without padding.

        Predictions are at least 0, and 0 in the padding.
        """
        with torch.autocast(text.device.type, enabled=False):
            mask = None if token_lengths is None else sequence_mask(token_lengths, text.shape[1])
            x = self.recurrent(self.stack(text.float(), mask), token_lengths)
            return apply_mask(F.softplus(self.output(x).squeeze(2)), mask)


class ProsodyPredictor(nn.Module):
    """Predicts one value per token, standardized pitch or energy (FastPitch, arXiv:2006.06873)."""

    def __init__(self, inputs: int, dim: int, dropout: float):
        super().__init__()
        self.stack = _ConvStack(inputs=inputs, dim=dim, layers=2, dropout=dropout)
        self.output = nn.Linear(dim, 1)

    def forward(self, text: Tensor, mask: Tensor | None) -> Tensor:
        """Predicts values (B, T), 0 in the padding, from text (B, T, D) with a mask (B, T) or None."""
        return apply_mask(self.output(self.stack(text, mask)).squeeze(2).float(), mask)


def average_over_tokens(values: Tensor, durations: Tensor, valid: Tensor) -> Tensor:
    """Averages frame values over the valid frames of each token.

    Args:
        values: (B, S).
        durations: (B, T) int64 frames per token.
        valid: (B, S) bool, the frames to average over (the voiced ones for pitch).

    Returns:
        (B, T) means; 0 where a token has no valid frame.
    """
    ends = durations.cumsum(1)
    weighted = F.pad((values * valid).double().cumsum(1), (1, 0))  # (B, S + 1): prefix sums
    counts = F.pad(valid.double().cumsum(1), (1, 0))
    starts = ends - durations
    sums = weighted.gather(1, ends) - weighted.gather(1, starts)
    number = counts.gather(1, ends) - counts.gather(1, starts)
    return (sums / number.clamp(min=1.0)).to(values.dtype)
