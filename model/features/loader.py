"""Loaders of training batches: load ahead in threads, optionally pad to a few static shapes, resume at the batch."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from model.acoustic.batch import Batch
from model.config.training import TrainSettings
from model.errors import FeatureError
from model.features.batching import FRAME_MULTIPLE, TOKEN_MULTIPLE, TrainingBatches, pad_batch, round_up
from model.features.sampling import BatchSampler
from model.features.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of the batches of one bucket: number of clips, and tokens and frames that each is padded to."""

    clips: int
    tokens: int
    frames: int


class ShapeSampler(BatchSampler):
    """Batch sampler whose batches have one of a few static shapes.

    Clips are sorted by length and divided into buckets of equal count, each with one shape. The last batch of a bucket
    is filled with clips of the bucket drawn again, so that every clip comes at least once per epoch.

    Args:
        frames, tokens: (clips,) frames and tokens of each clip.
        batch_size: Maximum number of clips in a batch.
        seed: Seed of the order.
        max_frames: Maximum number of frames in a batch, padding included; 0 means no bound.
        buckets: Maximum number of shapes; there are fewer if buckets would not fill one batch.
        divisor: Batch sizes are multiples of this, the number of micro-batches and processes that share a batch.
    """

    def __init__(
        self,
        frames: ArrayLike,
        tokens: ArrayLike,
        *,
        batch_size: int,
        seed: int,
        max_frames: int,
        buckets: int,
        divisor: int = 1,
    ) -> None:
        frames, tokens = np.asarray(frames), np.asarray(tokens)
        by_length = np.argsort(frames, kind="stable")
        count = max(1, min(buckets, len(by_length) // batch_size))
        self.buckets = np.array_split(by_length, count)
        self._bucket_of_clip = {int(clip): number for number, clips in enumerate(self.buckets) for clip in clips}
        self.shapes = []
        for clips in self.buckets:
            longest = round_up(int(frames[clips].max()), FRAME_MULTIPLE)
            fitting = max_frames // longest if max_frames else batch_size
            size = max(min(batch_size, fitting) // divisor, 1) * divisor
            most_tokens = round_up(int(tokens[clips].max()), TOKEN_MULTIPLE)
            self.shapes.append(Shape(clips=size, tokens=most_tokens, frames=longest))
        super().__init__(frames, batch_size, seed, max_frames=max_frames)

    def order(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng([self.seed, epoch])
        batches = []
        for clips, shape in zip(self.buckets, self.shapes, strict=True):
            shuffled = generator.permutation(clips)
            filled = np.concatenate([shuffled, generator.choice(clips, -len(shuffled) % shape.clips)])
            batches += filled.reshape(-1, shape.clips).tolist()
        return [batches[i] for i in generator.permutation(len(batches))]

    def shape_of(self, clip: int) -> Shape:
        """Returns the shape of the batches that contain a clip."""
        return self.shapes[self._bucket_of_clip[clip]]


class Loader:
    """Endless iterator over the training batches of one process.

    All processes draw the same global batch, `world` times as large as `training.batch_size`, and each loads its share:
    together they train as one process would with the global batch.

    Args:
        store: The features.
        config: Seed, batch size and bounds, `buffer_size`, `num_workers`, static shapes.
        rank: Rank of this process.
        world: World size, the number of processes that train together.
        pin: Put batches into pinned memory, for a GPU.

    Raises:
        FeatureError: the store is not fit for the settings, or settings contradict each other.
    """

    def __init__(
        self, store: FeatureStore, config: TrainSettings, rank: int = 0, world: int = 1, pin: bool = False
    ) -> None:
        self.rank, self.world, self.pin = rank, world, pin
        settings, losses = config.training, config.loss
        clips_per_speaker = losses.contrastive_clips_per_speaker if losses.use_contrastive_speaker_loss else 0
        self.batches = TrainingBatches(
            store,
            settings.batch_size * world,
            config.seed,
            max_frames=settings.max_batch_frames * world,
            min_size=world,
            clips_per_speaker=clips_per_speaker,
        )
        self.shapes: ShapeSampler | None = None
        if settings.enable_static_shapes:
            self.shapes = self._shape_sampler(store, config)
            self.batches.sampler = self.shapes
        self._ahead = settings.buffer_size
        self._threads = ThreadPoolExecutor(settings.num_workers, "batches") if self._ahead else None
        self._queue: deque[tuple[Future[Batch], dict[str, int]]] = deque()
        self._state = self.batches.state_dict()

    def _shape_sampler(self, store: FeatureStore, config: TrainSettings) -> ShapeSampler:
        settings = config.training
        if self.batches.compares_speakers:
            raise FeatureError(
                "training.enable_static_shapes and loss.use_contrastive_speaker_loss both determine the clips of a "
                "batch; disable one of them"
            )
        if self.batches.streamed:
            raise FeatureError(
                f"{store.path}: its shards do not fit the cache, and batches of static shapes draw from all of them; "
                "raise features.cache_megabytes, or disable training.enable_static_shapes"
            )
        rows = store.clips.rows[self.batches.positions]
        return ShapeSampler(
            rows["frames"],
            rows["tokens"],
            batch_size=settings.batch_size * self.world,
            seed=config.seed,
            max_frames=settings.max_batch_frames * self.world,
            buckets=settings.num_shape_buckets,
            divisor=self.world * settings.gradient_accumulation_steps,
        )

    def __next__(self) -> Batch:
        if self._threads is None:
            batch = self._load(*self._draw())
            self._state = self.batches.state_dict()
            return batch
        while len(self._queue) < self._ahead:
            self._queue.append((self._threads.submit(self._load, *self._draw()), self.batches.state_dict()))
        future, self._state = self._queue.popleft()
        return future.result()

    def _draw(self) -> tuple[list[int], int, Shape | None]:
        """Draws the next global batch; returns this process's positions, the epoch and the static shape."""
        positions, epoch = self.batches.draw()
        if len(positions) < self.world:  # raised by every process, so that none waits for another
            raise FeatureError(
                f"a batch of {len(positions)} clips cannot be shared among {self.world} processes; "
                "start fewer, or raise training.batch_size"
            )
        shape = None
        if self.shapes is not None:
            shape = self.shapes.shape_of(bisect_left(self.batches.positions, positions[0]))
        return self._share(positions), epoch, shape

    def _share(self, positions: list[int]) -> list[int]:
        """Returns this process's share of a batch: clips of all lengths, or whole speakers if they are compared."""
        if self.batches.compares_speakers:
            return np.array_split(positions, self.world)[self.rank].tolist()
        return positions[self.rank :: self.world]

    def _load(self, positions: list[int], epoch: int, shape: Shape | None) -> Batch:
        batch = self.batches.load(positions, epoch)
        if shape is not None:
            batch = pad_batch(batch, shape.tokens, shape.frames)
        return batch.pin_memory() if self.pin else batch

    def state_dict(self) -> dict[str, int]:
        """Returns the state after the last batch returned, regardless of batches loaded ahead."""
        return self._state

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes after the batch at which `state` was taken."""
        self._queue.clear()
        self.batches.load_state_dict(state)
        self._state = self.batches.state_dict()

    def close(self) -> None:
        """Stops the loading threads."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)


class RehearsalLoader:
    """Endless iterator over the training batches of one process, with clips of two feature stores in each.

    A batch has at most `training.batch_size` clips. If the corpus contributes fewer clips, the base does too, so that
    its share stays the same. Each store has its own sampler.

    Args:
        store: Features of the corpus.
        rehearsed: Features of the base voice.
        config: Settings of the training; `training.rehearsal` is above 0.
        languages: Languages of the model, to which the indices in batches refer.
        rank: Rank of this process.
        world: World size.
        pin: Put batches into pinned memory, for a GPU.

    Raises:
        FeatureError: the two stores do not fit together, or settings contradict each other.
    """

    def __init__(
        self,
        store: FeatureStore,
        rehearsed: FeatureStore,
        config: TrainSettings,
        languages: Sequence[str],
        *,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
    ) -> None:
        self._check(store, rehearsed, config, languages)
        own, others = batch_sizes(config, len(store.split("train")) // world)
        self.pin = pin
        self.own = Loader(store, _with_batches(config, own), rank, world)
        self.others = Loader(rehearsed, _with_batches(config, others), rank, world)
        self._languages = torch.tensor([languages.index(name) for name in rehearsed.languages])
        self._first_speaker, self._first_clip = len(store.speakers), len(store.clips)

    @staticmethod
    def _check(store: FeatureStore, rehearsed: FeatureStore, config: TrainSettings, languages: Sequence[str]) -> None:
        for key, given in (
            ("training.enable_static_shapes", config.training.enable_static_shapes),
            ("training.durations: cached", config.training.durations == "cached"),
        ):
            if given:
                raise FeatureError(f"{key} does not support training.rehearsal; disable one of them")
        if missing := [name for name in rehearsed.languages if name not in languages]:
            raise FeatureError(
                f"training.rehearsal: the base speaks {', '.join(missing)}, which this voice does not; enable "
                "training.keep_languages, or set training.rehearsal to 0"
            )
        if rehearsed.audio != store.audio or rehearsed.speaker_vectors.shape[1] != store.speaker_vectors.shape[1]:
            raise FeatureError(
                f"{rehearsed.path}: the features of the base have other mel settings or speaker embeddings than "
                f"{store.path}; set training.rehearsal to 0"
            )

    def __next__(self) -> Batch:
        others = next(self.others)
        others = replace(
            others,
            language=self._languages[others.language],
            speaker=others.speaker + self._first_speaker,
            reference_clip=others.reference_clip + self._first_clip,
        )
        batch = concatenate(next(self.own), others)
        return batch.pin_memory() if self.pin else batch

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of both loaders."""
        return {"own": self.own.state_dict(), "others": self.others.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes after the batch at which `state` was taken."""
        self.own.load_state_dict(state["own"])
        self.others.load_state_dict(state["others"])

    def close(self) -> None:
        """Stops the loading threads."""
        self.own.close()
        self.others.close()


def batch_sizes(config: TrainSettings, clips: int) -> tuple[int, int]:
    """Returns the numbers of clips in a batch of a process that come from the corpus and from the base.

    Args:
        config: Settings of the training.
        clips: Training clips of the corpus for each process.
    """
    share, size = config.training.rehearsal, config.training.batch_size
    own = max(1, min(size - max(1, round(share * size)), clips))
    return own, max(1, round(own * share / (1 - share)))


def concatenate(first: Batch, second: Batch) -> Batch:
    """Returns one batch with the clips of two, padded to the longer one."""
    tokens = max(first.ids.shape[1], second.ids.shape[1])
    frames = max(first.mel.shape[1], second.mel.shape[1])
    one, other = (pad_batch(batch, tokens, frames) for batch in (first, second))
    values: dict[str, Any] = {"clip_ids": [*one.clip_ids, *other.clip_ids]}
    for field in fields(Batch):
        tensor = getattr(one, field.name)
        if torch.is_tensor(tensor):
            values[field.name] = torch.cat([tensor, getattr(other, field.name)])
    return Batch(**values)


def _with_batches(config: TrainSettings, size: int) -> TrainSettings:
    """Returns the settings with another batch size, and a bound on frames in proportion."""
    training = config.training
    frames = math.ceil(training.max_batch_frames * size / training.batch_size)
    changed = training.model_copy(update={"batch_size": size, "max_batch_frames": frames})
    return config.model_copy(update={"training": changed})
