"""Building blocks shared by the acoustic model: length masks, adaptive layer norm, feed-forward transformer blocks.

Shapes: B batch, T positions (tokens or frames), D width, C condition width. Masks are made from lengths, and every
block leaves padded positions at zero, so that a clip gives the same result alone and in a batch. A mask of None means
no padding, which saves a fifth of the operations of synthesizing a single sentence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def sequence_mask(lengths: Tensor, size: int) -> Tensor:
    """Returns a mask (B, size), True inside each sequence of `lengths` (B,)."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def padding_mask(lengths: Tensor, size: int) -> Tensor | None:
    """Returns `sequence_mask`, or None if nothing is padded. Forces a device synchronization; avoid in GPU training."""
    return None if bool((lengths == size).all()) else sequence_mask(lengths, size)


def apply_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """Returns `x` (B, T, ...) with zeros where the mask (B, T) is False."""
    return x if mask is None else x * mask.reshape(mask.shape + (1,) * (x.dim() - 2)).to(x.dtype)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of `values` (B, T, ...) over the positions where `mask` (B, T) is True; a scalar."""
    weights = mask.reshape(mask.shape + (1,) * (values.dim() - mask.dim())).to(values.dtype)
    return (values * weights).sum() / weights.expand_as(values).sum().clamp(min=1.0)


class LinearConv1d(nn.Linear):
    """Same-length convolution over (B, T, D) instead of (B, D, T), with an odd kernel.

    Computed as one matrix product over shifted copies of the input; the weight is stored as that matrix, (outputs,
    kernel x inputs). Equal to `nn.Conv1d` without its transposes, with which a training step of the tiny model takes a
    tenth longer on a CPU (`python -m benchmarks.layers`).
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int):
        super().__init__(kernel_size * inputs, outputs)
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, inputs) to (B, T, outputs)."""
        if self.kernel_size == 1:
            return super().forward(x)
        reach, length = self.kernel_size // 2, x.shape[1]
        padded = F.pad(x, (0, 0, reach, reach))
        return super().forward(torch.cat([padded[:, i : i + length] for i in range(self.kernel_size)], dim=2))


class Dropout(nn.Module):
    """`nn.Dropout` that makes four decisions from each 64-bit random number on a CPU.

    With `nn.Dropout` a training step of the tiny model takes a twentieth longer in bfloat16, and no longer in float32
    (`python -m benchmarks.layers`). The probability `p` is rounded to a multiple of 2^-16.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p, self.training)
        random = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = random.view(torch.int16)[: x.numel()].view(x.shape) >= round(self.p * 2**16) - 2**15
        return x * (kept.to(x.dtype) / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class BidirectionalLSTM(nn.Module):
    """Bidirectional LSTM over padded sequences.

    Each sequence is reversed by index, so that padding follows it in both directions. `nn.LSTM` with packed sequences
    gives the same result, but it needs the lengths on the CPU, which forces a device synchronization, and a training
    step of the tiny model takes a tenth longer on a CPU (`python -m benchmarks.layers`).
    """

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.ahead = nn.LSTM(inputs, dim, batch_first=True)
        self.back = nn.LSTM(inputs, dim, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Maps (B, T, D) with lengths (B,), or None without padding, to (B, T, 2 H); undefined in the padding."""
        if lengths is None:
            return torch.cat((self.ahead(x)[0], self.back(x.flip(1))[0].flip(1)), dim=2)
        position = torch.arange(x.shape[1], device=x.device)[None, :]
        index = torch.where(position < lengths[:, None], lengths[:, None] - 1 - position, position)[:, :, None]
        back = self.back(x.gather(1, index.expand_as(x)))[0]
        return torch.cat((self.ahead(x)[0], back.gather(1, index.expand_as(back))), dim=2)


class AdaptiveLayerNorm(nn.Module):
    """Layer norm whose scale and shift come from a condition vector (as in StyleTTS 2, arXiv:2306.07691).

    Zero-initialized: an untrained model ignores the condition.
    """

    def __init__(self, dim: int, condition_dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.modulation = nn.Linear(condition_dim, 2 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalizes (B, T, D) under conditions (B, C)."""
        scale, shift = self.modulation(condition)[:, None, :].chunk(2, dim=-1)  # (B, 1, D) each
        return torch.addcmul(shift, self.norm(x), 1 + scale)


Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the rotation angle of each position and channel pair, (T, D / heads / 2) each."""


class RotaryAttention(nn.Module):
    """Multi-head self-attention with rotary position embeddings (RoFormer, arXiv:2104.09864).

    Scores depend on position differences only, so that texts longer than those of training work. There is no dropout on
    the attention weights: it would rule out the fused kernels, and takes a quarter of a training step on a CPU.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None, rotation: Rotation) -> Tensor:
        """Maps (B, T, D) with a mask (B, T) or None to (B, T, D)."""
        batch, length, dim = x.shape
        qkv = self.query_key_value(x).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        value = qkv[2]  # (B, heads, T, D / heads)
        query, key = _rotate(qkv[:2], rotation).to(value.dtype)
        out = _attend(query, key, value, mask)
        return self.output(out.transpose(1, 2).reshape(batch, length, dim))


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Computes scaled dot-product attention over (B, heads, T, D / heads) with a mask (B, T).

    Uses the fused kernel on a GPU and without padding. On a CPU its masked backward pass is slow: written out, a
    training step of the tiny model takes a fifth less time.
    """
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    mask = mask[:, None, None, :]
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query @ key.transpose(2, 3)).float() * query.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).to(value.dtype) @ value


def _rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Applies the rotary embedding to (..., T, D / heads)."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class FeedForwardTransformerBlock(nn.Module):
    """Pre-norm block of FastSpeech (arXiv:1905.09263): self-attention, then a convolutional feed-forward network."""

    def __init__(self, *, dim: int, num_heads: int, ffn_dim: int, kernel_size: int, dropout: float, condition_dim: int):
        super().__init__()
        self.attention_norm = AdaptiveLayerNorm(dim, condition_dim)
        self.attention = RotaryAttention(dim, num_heads)
        self.feed_forward_norm = AdaptiveLayerNorm(dim, condition_dim)
        self.expand = LinearConv1d(dim, ffn_dim, kernel_size)
        self.contract = LinearConv1d(ffn_dim, dim, 1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, condition: Tensor, rotation: Rotation) -> Tensor:
        """Maps (B, T, D) with a mask (B, T) or None and conditions (B, C) to (B, T, D), zero in the padding."""
        x = x + self.dropout(self.attention(self.attention_norm(x, condition), mask, rotation))
        hidden = self.expand(apply_mask(self.feed_forward_norm(x, condition), mask))
        x = x + self.dropout(self.contract(F.relu(hidden, inplace=True)))
        return apply_mask(x, mask)


class Transformer(nn.Module):
    """Stack of feed-forward transformer blocks with a final norm.

    Attributes:
        checkpointing: Gradient checkpointing: store only the input of each block in training and recompute the rest.
    """

    checkpointing = False

    frequencies: Tensor

    def __init__(
        self,
        *,
        layers: int,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        kernel_size: int,
        dropout: float,
        condition_dim: int,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            FeedForwardTransformerBlock(
                dim=dim,
                num_heads=num_heads,
                ffn_dim=ffn_dim,
                kernel_size=kernel_size,
                dropout=dropout,
                condition_dim=condition_dim,
            )
            for _ in range(layers)
        )
        self.norm = AdaptiveLayerNorm(dim, condition_dim)
        half = dim // num_heads // 2
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(half) / half), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None, condition: Tensor) -> Tensor:
        """Maps (B, T, D) with a mask (B, T) or None and conditions (B, C) to (B, T, D), zero in the padding."""
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * self.frequencies  # (T, D / heads / 2)
        rotation = angles.cos(), angles.sin()
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, mask, condition, rotation, use_reentrant=False)
            else:
                x = block(x, mask, condition, rotation)
        return apply_mask(self.norm(x, condition), mask)
