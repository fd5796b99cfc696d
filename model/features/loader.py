"""Batches ahead of time: drawn in order, loaded in threads, handed out in order, resumable to the batch.

Threads, not processes: features are memory-mapped and a batch is a few copies that let go of the interpreter, so there
is nothing to gain from processes, and no shared memory to run out of in a container.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from model.config import Config
from model.features.batching import Batch, TrainingBatches
from model.features.index import FeatureError
from model.features.shapes import ShapeSampler, pad_batch
from model.features.store import FeatureStore


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

    def __init__(self, store: FeatureStore, config: Config, rank: int = 0, world: int = 1, pin: bool = False) -> None:
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
