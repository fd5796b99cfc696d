"""Building blocks shared by the acoustic model: length masks, adaptive layer norm, feed-forward transformer blocks.

Shapes: B batch, T positions (tokens or frames), D width, C condition width. Padding is always told by a mask made from
lengths, and every block leaves padded positions at zero, so a clip alone and in a batch gives the same result. No mask
means no padding: of the many small operations of speaking one sentence, a fifth would only multiply by one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def sequence_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True inside each sequence."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def padding_mask(lengths: Tensor, size: int) -> Tensor | None:
    """As `sequence_mask`, but None where nothing is padded; waits for the lengths, so not for training on a GPU."""
    return None if bool((lengths == size).all()) else sequence_mask(lengths, size)


def apply_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, ...) with zeros where the mask (B, T) is False."""
    return x if mask is None else x * mask.reshape(mask.shape + (1,) * (x.dim() - 2)).to(x.dtype)


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


class Dropout(nn.Module):
    """`nn.Dropout` with four decisions from each random number on a CPU, which draws slower than it multiplies.

    A step of the tiny model took a fifteenth of its time to draw; `rate` is kept to 1/65536.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.rate, self.training)
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.int16)[: x.numel()].view(x.shape) >= round(self.rate * 2**16) - 2**15
        return x * (kept.to(x.dtype) / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class BidirectionalLSTM(nn.Module):
    """An LSTM from each end of every sequence: (B, T, D) -> (B, T, 2 H), at padding of no meaning.

    Sequences are turned about by index instead of packed, which runs token by token: twice as fast on a CPU, and a GPU
    need not be waited for. Padding lies behind a sequence either way, so neither direction meets it.
    """

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.ahead = nn.LSTM(inputs, dim, batch_first=True)
        self.back = nn.LSTM(inputs, dim, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Lengths (B,); none, where there is no padding."""
        if lengths is None:
            return torch.cat((self.ahead(x)[0], self.back(x.flip(1))[0].flip(1)), dim=2)
        position = torch.arange(x.shape[1], device=x.device)[None, :]
        turned = torch.where(position < lengths[:, None], lengths[:, None] - 1 - position, position)[:, :, None]
        back = self.back(x.gather(1, turned.expand_as(x)))[0]
        return torch.cat((self.ahead(x)[0], back.gather(1, turned.expand_as(back))), dim=2)


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
        return torch.addcmul(shift, self.norm(x), 1 + scale)


Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the angle of each position and pair of channels, (T, D / heads / 2) each."""


class RotaryAttention(nn.Module):
    """Multi-head self-attention with rotary position embeddings (RoFormer, arXiv:2104.09864).

    Positions enter only as differences (`Rotation`), so a text longer than any in training still works. No dropout on
    the attention weights: it would rule out the fused kernels, and costs a quarter of a step on a CPU.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None, rotation: Rotation) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.query_key_value(x).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        value = qkv[2]  # (B, heads, T, D / heads)
        query, key = _rotate(qkv[:2], rotation).to(value.dtype)
        out = _attend(query, key, value, mask)
        return self.output(out.transpose(1, 2).reshape(batch, length, dim))


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention over (B, heads, T, D / heads), mask (B, T).

    The fused kernel on a GPU, or without padding. On a CPU its masked backward pass is slow; written out, a training
    step of the tiny model takes a fifth less.
    """
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    mask = mask[:, None, None, :]
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query @ key.transpose(2, 3)).float() * query.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).to(value.dtype) @ value


def _rotate(x: Tensor, rotation: Rotation) -> Tensor:
    cosine, sine = rotation
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
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, condition: Tensor, rotation: Rotation) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x, condition), mask, rotation))
        hidden = self.expand(apply_mask(self.feed_forward_norm(x, condition), mask))
        x = x + self.dropout(self.contract(F.relu(hidden, inplace=True)))
        return apply_mask(x, mask)


class Transformer(nn.Module):
    """A stack of feed-forward transformer blocks with a final norm.

    (B, T, D), mask (B, T) or None, condition (B, C) -> (B, T, D), zero at padding.

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
        half = dim // num_heads // 2
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(half) / half), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None, condition: Tensor) -> Tensor:
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * self.frequencies  # (T, D / heads / 2)
        rotation = angles.cos(), angles.sin()
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, mask, condition, rotation, use_reentrant=False)
            else:
                x = block(x, mask, condition, rotation)
        return apply_mask(self.norm(x, condition), mask)
