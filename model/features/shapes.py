"""Static shapes: every batch padded to one of a few (tokens, frames) sizes, so that a compiled model or a GPU's memory
pool meets the same few shapes again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch.nn import functional as F

from model.audio.mel import SILENCE
from model.features.batching import Batch
from model.features.sampling import BatchSampler

PADDING = {"ids": 0, "mel": SILENCE, "pitch": 0.0, "voiced": False, "energy": 0.0}
"""Batch field -> what stands in its padding."""
MULTIPLE = 8
"""Sizes are rounded up to this: the width of a processor's matrix tiles."""


@dataclass(frozen=True)
class Shape:
    """Size of one bucket: clips of a batch, tokens and frames that each is padded to."""

    clips: int
    tokens: int
    frames: int


class ShapeSampler(BatchSampler):
    """Batches of one bucket each, and of its full size.

    Buckets are stretches of equal count in the order of length. What does not fill the last batch of a bucket is filled
    up with clips of the bucket drawn again, so every clip comes at least once per epoch.

    Args:
        frames, tokens: Of each clip.
        batch_size: Most clips of a batch.
        seed: Of the order.
        max_frames: Most frames of a batch, padding included (0: no bound).
        buckets: Most shapes; fewer where a bucket would not fill one batch.
        divisor: Batch sizes are multiples of this: parts and processes that a batch is shared among.
    """

    def __init__(
        self,
        frames: Sequence[int],
        tokens: Sequence[int],
        batch_size: int,
        seed: int,
        max_frames: int,
        buckets: int,
        divisor: int = 1,
    ) -> None:
        by_length = np.argsort(np.asarray(frames), kind="stable")
        count = max(1, min(buckets, len(by_length) // batch_size))
        self.members = np.array_split(by_length, count)
        self._bucket_of = {int(clip): number for number, members in enumerate(self.members) for clip in members}
        self.shapes = []
        for members in self.members:
            longest = _round_up(max(frames[i] for i in members))
            fitting = max_frames // longest if max_frames else batch_size
            clips = max(min(batch_size, fitting) // divisor, 1) * divisor
            self.shapes.append(Shape(clips, _round_up(max(tokens[i] for i in members)), longest))
        super().__init__(frames, batch_size, seed, max_frames)

    def order(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng([self.seed, epoch])
        batches = []
        for members, shape in zip(self.members, self.shapes, strict=True):
            drawn = generator.permutation(members)
            drawn = np.concatenate([drawn, generator.choice(members, -len(drawn) % shape.clips)])
            batches += drawn.reshape(-1, shape.clips).tolist()
        return [batches[i] for i in generator.permutation(len(batches))]

    def shape_of(self, clip: int) -> Shape:
        """The shape of the batches that a clip comes in."""
        return self.shapes[self._bucket_of[clip]]


def pad_batch(batch: Batch, tokens: int, frames: int) -> Batch:
    """A batch padded further, to (B, `tokens`) and (B, `frames`); what it says stays the same."""
    padded = {}
    for name, value in PADDING.items():
        tensor = getattr(batch, name)
        missing = (tokens if name == "ids" else frames) - tensor.shape[1]
        trailing = (0, 0) * (tensor.dim() - 2)
        padded[name] = F.pad(tensor, (*trailing, 0, missing), value=value)
    return replace(batch, **padded)


def _round_up(size: int) -> int:
    return -(-int(size) // MULTIPLE) * MULTIPLE
