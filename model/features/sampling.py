"""Batch samplers: which clips form a batch and in which order, shuffled each epoch and resumable to the batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from model.errors import FeatureError

BUCKET_BATCHES = 8
"""Clips are sorted by length within random buckets of this many batches: little padding, yet random batches."""


class BatchSampler:
    """Endless iterator over batches of clip indices: every clip once per epoch, clips of similar length together.

    The order of an epoch depends on (seed, epoch) alone, so that (epoch, position) is the whole state.

    Args:
        lengths: (clips,) frames of each clip.
        batch_size: Maximum number of clips in a batch.
        seed: Seed of the order.
        max_frames: Maximum number of frames in a batch, padding included; 0 means no bound. A batch of `min_size` clips
            may have more.
        min_size: Smallest number of clips in a batch, so that each process that shares it gets one. Fewer clips at the
            end of an epoch join the batch before them.
        shards: (clips,) shard of each clip, if not all shards fit the cache. Each epoch partitions the shards at random
            into groups of at most `max_resident_shards`, and batches mix clips within a group.
        max_resident_shards: Number of shards that fit the cache together.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        batch_size: int,
        seed: int,
        *,
        max_frames: int = 0,
        min_size: int = 1,
        shards: ArrayLike | None = None,
        max_resident_shards: int = 0,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if not len(self.lengths):
            raise FeatureError("no clips to draw batches from; the split is empty")
        self.batch_size, self.min_size = batch_size, min_size
        self.max_frames = max_frames or len(self.lengths) * int(self.lengths.max())
        self.seed = seed
        self.shards = None if shards is None else np.asarray(shards)
        self.max_resident_shards = max_resident_shards
        self.epoch = 0
        self.position = 0
        self._order = self.order(0)

    def __iter__(self) -> Iterator[list[int]]:
        return self

    def __next__(self) -> list[int]:
        if self.position == len(self._order):
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self.order(self.epoch)
        self.position += 1
        return self._order[self.position - 1]

    def order(self, epoch: int) -> list[list[int]]:
        """Returns the batches of an epoch."""
        generator = np.random.default_rng([self.seed, epoch])
        order = []
        for group in self._shard_groups(generator):
            shuffled = generator.permutation(group)
            batches = []
            for bucket in _split_evenly(shuffled, self.batch_size * BUCKET_BATCHES):
                batches += self._pack(bucket[np.argsort(-self.lengths[bucket], kind="stable")].tolist())
            order += [batches[i] for i in generator.permutation(len(batches))]
        return order

    def _shard_groups(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Returns the groups of clips whose shards are in the cache at the same time."""
        if self.shards is None:
            return [np.arange(len(self.lengths))]
        shuffled = generator.permutation(np.unique(self.shards))
        groups = _split_evenly(shuffled, self.max_resident_shards)
        return [np.flatnonzero(np.isin(self.shards, group)) for group in groups]

    def _pack(self, clips: list[int]) -> list[list[int]]:
        """Packs clips, longest first, into batches within both bounds; the first clip sets the padded length."""
        batches = []
        while clips:
            fitting = self.max_frames // int(self.lengths[clips[0]])
            size = min(max(fitting, self.min_size), self.batch_size)
            batches.append(clips[:size])
            clips = clips[size:]
        if len(batches) > 1 and len(batches[-1]) < len(batches[-2]):  # the gradient of a very small batch is noisy
            last = batches[-2] + batches[-1]
            batches[-2:] = [last] if len(last) < 2 * self.min_size else _halves(last)
        return batches

    def state_dict(self) -> dict[str, int]:
        """Returns epoch and position within it, after the last batch drawn."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restores the position of a sampler of the same clips, batch size and seed."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self.order(self.epoch)


class SpeakerBatchSampler(BatchSampler):
    """Batches of P speakers with K clips each, for losses that compare speakers; every clip once per epoch.

    A speaker's last K clips may be fewer.

    Args:
        lengths, seed, max_frames: See `BatchSampler`.
        speakers: (clips,) speaker of each clip.
        batch_size: Maximum number of clips in a batch; P is `batch_size` // K.
        clips_per_speaker: K.

    Attributes:
        without_contrast: Number of batches in the first epoch that allow no comparison: those with a single speaker, or
            with a single clip of each.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        speakers: ArrayLike,
        *,
        batch_size: int,
        clips_per_speaker: int,
        seed: int,
        max_frames: int = 0,
    ) -> None:
        self.speakers = np.asarray(speakers)
        self.clips_per_speaker = clips_per_speaker
        super().__init__(lengths, batch_size, seed, max_frames=max_frames)
        self.without_contrast = sum(not self._has_contrast(batch) for batch in self._order)

    def order(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng([self.seed, epoch])
        groups = []  # (round, random order within the round, clips): each round has one group of every speaker
        for speaker in np.unique(self.speakers):
            own = generator.permutation(np.flatnonzero(self.speakers == speaker))
            buckets = _split_evenly(own, self.clips_per_speaker * BUCKET_BATCHES)
            by_length = np.concatenate([bucket[np.argsort(-self.lengths[bucket])] for bucket in buckets])
            for number, group in enumerate(_split_evenly(by_length, self.clips_per_speaker)):
                groups.append((number, generator.random(), group.tolist()))
        batches: list[list[int]] = [[]]
        for _, _, group in sorted(groups):
            if batches[-1] and not self._fits(batches[-1] + group):
                batches.append([])
            batches[-1] = batches[-1] + group
        if len(batches) > 1 and 2 * len(batches[-1]) < len(batches[-2]):
            halves = _halves(batches[-2] + batches[-1])
            if all(map(self._fits, halves)):
                batches[-2:] = halves
        return [batches[i] for i in generator.permutation(len(batches))]

    def _fits(self, batch: list[int]) -> bool:
        return len(batch) <= self.batch_size and len(batch) * self.lengths[batch].max() <= self.max_frames

    def _has_contrast(self, batch: list[int]) -> bool:
        _, counts = np.unique(self.speakers[batch], return_counts=True)
        return len(counts) > 1 and counts.max() > 1


def _split_evenly(items: np.ndarray, size: int) -> list[np.ndarray]:
    """Splits items into parts of nearly equal size, none larger than `size`."""
    return np.array_split(items, -(-len(items) // size))


def _halves(items: list[int]) -> list[list[int]]:
    """Splits items in two; the first half is the larger one if their number is odd."""
    middle = -(-len(items) // 2)
    return [items[:middle], items[middle:]]
