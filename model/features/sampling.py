"""Which clips come together, and in which order: bucketed by length, shuffled each epoch, resumable to the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from model.errors import FeatureError

BUCKET_BATCHES = 8
"""Clips are sorted by length within stretches of so many batches: little padding, and still another mix each epoch."""


class BatchSampler:
    """Endless batches of positions: every clip exactly once per epoch, clips of like length together.

    The order of an epoch is a function of (seed, epoch) alone, so that (epoch, position) is all there is to resume.

    Args:
        lengths: Frames of each clip.
        batch_size: Most clips of a batch.
        seed: Of the order.
        max_frames: Most frames of a batch, padding included (0: no bound). A single clip above it is a batch by itself.
        groups: Shard of each clip, where they cannot all be at hand: clips of `at_once` shards (others each epoch) are
            mixed before the next shards' turn.
        at_once: How many.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        max_frames: int = 0,
        groups: Sequence[int] = (),
        at_once: int = 0,
    ) -> None:
        if not len(lengths):
            raise FeatureError("no clips to draw batches from; the split is empty")
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.max_frames = max_frames or len(self.lengths) * int(self.lengths.max())
        self.seed = seed
        self.groups = np.asarray(groups)
        self.at_once = at_once
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
        """The batches of an epoch."""
        generator = np.random.default_rng([self.seed, epoch])
        order = []
        for window in self._windows(generator):
            shuffled = generator.permutation(window)
            batches = []
            for bucket in np.array_split(shuffled, _ceil(len(shuffled), self.batch_size * BUCKET_BATCHES)):
                batches += self._pack(bucket[np.argsort(-self.lengths[bucket], kind="stable")].tolist())
            order += [batches[i] for i in generator.permutation(len(batches))]
        return order

    def _windows(self, generator: np.random.Generator) -> list[np.ndarray]:
        """The clips that are mixed with each other."""
        if not len(self.groups):
            return [np.arange(len(self.lengths))]
        shards = generator.permutation(np.unique(self.groups))
        parts = np.array_split(shards, _ceil(len(shards), self.at_once))
        return [np.flatnonzero(np.isin(self.groups, part)) for part in parts]

    def _pack(self, clips: list[int]) -> list[list[int]]:
        """Clips, longest first, as batches within both bounds; the first clip of each sets its padded length."""
        batches = []
        while clips:
            fitting = self.max_frames // int(self.lengths[clips[0]])
            size = min(max(fitting, 1), self.batch_size)
            batches.append(clips[:size])
            clips = clips[size:]
        if len(batches) > 1 and len(batches[-1]) < len(batches[-2]):  # no step learns from a single left-over
            shared = batches[-2] + batches[-1]
            batches[-2:] = [shared[: _ceil(len(shared), 2)], shared[_ceil(len(shared), 2) :]]
        return batches

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a sampler of the same clips, batch size and seed was."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self.order(self.epoch)


def _ceil(items: int, size: int) -> int:
    return -(-items // size)


class SpeakerBatchSampler(BatchSampler):
    """Batches of P speakers with K clips each, for losses that compare speakers; every clip exactly once per epoch.

    A speaker's last group may be smaller. `without_contrast` counts the batches of the first epoch in which no speaker
    comes twice, or only one comes at all: such a loss learns nothing from them.

    Args:
        lengths, batch_size, seed, max_frames: As of `BatchSampler`; P is `batch_size` // K.
        speakers: Speaker of each clip.
        clips_per_speaker: K.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        speakers: Sequence[int],
        batch_size: int,
        clips_per_speaker: int,
        seed: int,
        max_frames: int = 0,
    ) -> None:
        self.speakers = np.asarray(speakers)
        self.clips_per_speaker = clips_per_speaker
        super().__init__(lengths, batch_size, seed, max_frames)
        self.without_contrast = sum(not self._has_contrast(batch) for batch in self._order)

    def order(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng([self.seed, epoch])
        groups = []  # (round, order within it, clips): in a round every speaker has its turn
        for speaker in np.unique(self.speakers):
            own = generator.permutation(np.flatnonzero(self.speakers == speaker))
            stretch = self.clips_per_speaker * BUCKET_BATCHES
            ordered = [part[np.argsort(-self.lengths[part])] for part in _parts(own, stretch)]
            parts = _parts(np.concatenate(ordered), self.clips_per_speaker)
            groups += [(number, generator.random(), part.tolist()) for number, part in enumerate(parts)]
        batches: list[list[int]] = [[]]
        for _, _, group in sorted(groups):
            if batches[-1] and not self._fits(batches[-1] + group):
                batches.append([])
            batches[-1] = batches[-1] + group
        if len(batches) > 1 and 2 * len(batches[-1]) < len(batches[-2]):  # no step learns from a small left-over
            shared = batches[-2] + batches[-1]
            halves = [shared[: _ceil(len(shared), 2)], shared[_ceil(len(shared), 2) :]]
            if all(map(self._fits, halves)):
                batches[-2:] = halves
        return [batches[i] for i in generator.permutation(len(batches))]

    def _fits(self, batch: list[int]) -> bool:
        return len(batch) <= self.batch_size and len(batch) * self.lengths[batch].max() <= self.max_frames

    def _has_contrast(self, batch: list[int]) -> bool:
        _, counts = np.unique(self.speakers[batch], return_counts=True)
        return len(counts) > 1 and counts.max() > 1


def _parts(items: np.ndarray, size: int) -> list[np.ndarray]:
    """Parts of even size, none above `size`."""
    return np.array_split(items, _ceil(len(items), size))
