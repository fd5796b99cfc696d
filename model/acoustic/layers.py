"""Building blocks shared by the acoustic model: length masks, adaptive layer norm, feed-forward transformer blocks.

Shapes: B batch, T positions (tokens or frames), D width, C condition width. Padding is always told by a mask made from
lengths, and every block leaves padded positions at zero, so a clip alone and in a batch gives the same result.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True inside each sequence."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` (B, T, ...) over the positions where `mask` (B, T) is True."""
    weights = mask.reshape(mask.shape + (1,) * (values.dim() - mask.dim())).to(values.dtype)
    return (values * weights).sum() / weights.expand_as(values).sum().clamp(min=1.0)


class Conv1d(nn.Linear):
    """Length-keeping convolution over (B, T, D) instead of (B, D, T), odd kernel.

    Computed as one matrix product over shifted copies, with the weight kept as that matrix, (outputs, kernel x inputs):
    equal to the convolution, needs no transposes, and twice as fast in bfloat16 on a CPU, whose convolution kernels
    gain little from it.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int):
        super().__init__(kernel_size * inputs, outputs)
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == 1:
            return super().forward(x)
        reach, length = self.kernel_size // 2, x.shape[1]
        padded = F.pad(x, (0, 0, reach, reach))
        return super().forward(torch.cat([padded[:, i : i + length] for i in range(self.kernel_size)], dim=2))


class AdaptiveLayerNorm(nn.Module):
    """Layer norm whose scale and shift come from a condition vector (as in StyleTTS 2, arXiv:2306.07691).

    Zero-initialised: an untrained model ignores the condition, and learns how far to follow it.
    """

    def __init__(self, dim: int, condition_dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.modulation = nn.Linear(condition_dim, 2 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, None, :].chunk(2, dim=-1)  # (B, 1, D) each
        return self.norm(x) * (1 + scale) + shift


class RotaryAttention(nn.Module):
    """Multi-head self-attention with rotary position embeddings (RoFormer, arXiv:2104.09864).

    Positions enter only as differences, so a text longer than any in training still works. No dropout on the attention
    weights: it would rule out the fused kernels, and costs a quarter of a step on a CPU.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        half = dim // num_heads // 2
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(half) / half), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.query_key_value(x).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv  # (B, heads, T, D / heads)
        angles = torch.arange(length, device=x.device)[:, None] * self.frequencies  # (T, D / heads / 2)
        cosine, sine = angles.cos(), angles.sin()
        query, key = (_rotate(item, cosine, sine).to(value.dtype) for item in (query, key))
        out = _attend(query, key, value, mask[:, None, None, :])
        return self.output(out.transpose(1, 2).reshape(batch, length, dim))


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention over (B, heads, T, D / heads), mask (B, 1, 1, T).

    The fused kernel on a GPU. On a CPU its masked backward pass is slow; written out, a training step of the tiny model
    takes a fifth less.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query @ key.transpose(2, 3)).float() * query.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).to(value.dtype) @ value


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class FeedForwardTransformerBlock(nn.Module):
    """Pre-norm block of FastSpeech (arXiv:1905.09263): self-attention, then a convolutional feed-forward part."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, kernel_size: int, dropout: float, condition_dim: int):
        super().__init__()
        self.attention_norm = AdaptiveLayerNorm(dim, condition_dim)
        self.attention = RotaryAttention(dim, num_heads)
        self.feed_forward_norm = AdaptiveLayerNorm(dim, condition_dim)
        self.expand = Conv1d(dim, ffn_dim, kernel_size)
        self.contract = Conv1d(ffn_dim, dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        keep = mask[:, :, None].to(x.dtype)
        x = x + self.dropout(self.attention(self.attention_norm(x, condition), mask))
        hidden = self.expand(self.feed_forward_norm(x, condition) * keep)
        x = x + self.dropout(self.contract(F.relu(hidden)))
        return x * keep


class Transformer(nn.Module):
    """A stack of feed-forward transformer blocks with a final norm.

    (B, T, D), mask (B, T), condition (B, C) -> (B, T, D), zero at padding.

    Attributes:
        checkpointing: Keep only the input of each block in training, and compute the rest again for the gradient.
    """

    checkpointing = False

    def __init__(
        self, layers: int, dim: int, num_heads: int, ffn_dim: int, kernel_size: int, dropout: float, condition_dim: int
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            FeedForwardTransformerBlock(dim, num_heads, ffn_dim, kernel_size, dropout, condition_dim)
            for _ in range(layers)
        )
        self.norm = AdaptiveLayerNorm(dim, condition_dim)

    def forward(self, x: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, mask, condition, use_reentrant=False)
            else:
                x = block(x, mask, condition)
        return self.norm(x, condition) * mask[:, :, None].to(x.dtype)
