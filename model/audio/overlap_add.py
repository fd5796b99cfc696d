"""Overlap-add of frames, the last step of an inverse STFT."""

from __future__ import annotations

from torch import Tensor, nn


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sums frames (..., S, n_fft) that start every `hop` samples to (..., (S - 1) * hop + n_fft)."""
    *batch, count, size = frames.shape
    blocks = -(-size // hop)
    split = nn.functional.pad(frames, (0, blocks * hop - size)).reshape(*batch, count, blocks, hop)
    total = frames.new_zeros(*batch, count + blocks - 1, hop)
    for block in range(blocks):
        total[..., block : block + count, :] += split[..., block, :]
    return total.reshape(*batch, -1)[..., : (count - 1) * hop + size]
