"""Training batches loaded ahead in threads, optionally padded to a few static shapes; resumable to the batch."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from torch.nn import functional as F

from model.acoustic.batch import Batch
from model.audio import SILENCE
from model.config.training import TrainSettings
from model.features.batching import TrainingBatches
from model.features.index import FeatureError
from model.features.sampling import BatchSampler
from model.features.store import FeatureStore

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


class Loader:
    """Endless training batches of one process.

    All processes draw the same batch, `world` times as large, and each takes its share of it: together they do what one
    process with that batch would do.

    Args:
        store: The features.
        config: Seed, batch size and bounds, `buffer_size`, `num_workers`, static shapes.
        rank, world: Number of this process, and of all that train together.
        pin: Put batches into pinned memory, for a GPU.

    Raises:
        FeatureError: static shapes and batches of speakers are both asked for.
    """

    def __init__(
        self, store: FeatureStore, config: TrainSettings, rank: int = 0, world: int = 1, pin: bool = False
    ) -> None:
        self.rank, self.world, self.pin = rank, world, pin
        settings, losses, seed = config.training, config.loss, config.seed
        clips_per_speaker = losses.contrastive_clips_per_speaker if losses.use_contrastive_speaker_loss else 0
        size, bound = settings.batch_size * world, settings.max_batch_frames * world
        self.batches = TrainingBatches(store, size, seed, bound, clips_per_speaker)
        self.shapes: ShapeSampler | None = None
        if settings.enable_static_shapes and clips_per_speaker:
            raise FeatureError(
                "training.enable_static_shapes and loss.use_contrastive_speaker_loss both choose what a batch holds; "
                "leave one of the two out"
            )
        if settings.enable_static_shapes and self.batches.streamed:
            raise FeatureError(
                f"{store.path}: its shards do not fit the cache, and batches of static shapes draw from all of them; "
                "raise features.cache_megabytes, or disable training.enable_static_shapes"
            )
        if settings.enable_static_shapes:
            clips = [store.clips[position] for position in self.batches.positions]
            frames, tokens = [clip.frames for clip in clips], [clip.tokens for clip in clips]
            divisor = world * settings.gradient_accumulation_steps
            self.shapes = ShapeSampler(frames, tokens, size, seed, bound, settings.num_shape_buckets, divisor)
            self.batches.sampler = self.shapes
        self._ahead = settings.buffer_size
        self._threads = ThreadPoolExecutor(settings.num_workers, "batches") if self._ahead else None
        self._queue: deque[tuple[Future[Batch], dict[str, int]]] = deque()
        self._state = self.batches.state_dict()

    def __next__(self) -> Batch:
        if self._threads is None:
            batch = self._load(*self._draw())
            self._state = self.batches.state_dict()
            return batch
        while len(self._queue) < self._ahead:
            self._queue.append((self._threads.submit(self._load, *self._draw()), self.batches.state_dict()))
        future, self._state = self._queue.popleft()
        return future.result()

    def _draw(self) -> tuple[list[int], int, tuple[int, int] | None]:
        positions, epoch = self.batches.draw()
        shape = None
        if self.shapes is not None:
            bucket = self.shapes.shape_of(bisect_left(self.batches.positions, positions[0]))
            shape = bucket.tokens, bucket.frames
        if len(positions) < self.world:  # every process says so: none waits for one that has stopped
            raise FeatureError(
                f"a batch of {len(positions)} clips cannot be shared among {self.world} processes; "
                "start fewer, or raise training.batch_size"
            )
        return self._own(positions), epoch, shape

    def _own(self, positions: list[int]) -> list[int]:
        """What this process takes of a batch: clips of all lengths, or, to be compared, clips of the same speakers."""
        if self.batches.compares_speakers:
            return np.array_split(positions, self.world)[self.rank].tolist()
        return positions[self.rank :: self.world]

    def _load(self, positions: list[int], epoch: int, shape: tuple[int, int] | None) -> Batch:
        batch = self.batches.load(positions, epoch)
        if shape is not None:
            batch = pad_batch(batch, *shape)
        return batch.pinned() if self.pin else batch

    def state_dict(self) -> dict[str, int]:
        """Where a resumed loader goes on: after the last batch handed out, whatever was loaded ahead."""
        return self._state

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._queue.clear()
        self.batches.load_state_dict(state)
        self._state = self.batches.state_dict()

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
