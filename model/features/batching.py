"""Padded batches of clips: bucketed by length and shuffled for training, in order for evaluation."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from model.acoustic.batch import REFERENCE_FRAMES, Batch, pad_reference
from model.audio import SILENCE
from model.errors import FeatureError
from model.features.sampling import BatchSampler, SpeakerBatchSampler
from model.features.statistics import Statistics
from model.features.store import ClipFeatures, FeatureStore

log = logging.getLogger(__name__)

Sizes = TypeVar("Sizes", int, np.ndarray)

PADDING = {"ids": 0, "mel": SILENCE, "pitch": 0.0, "voiced": False, "energy": 0.0}
"""Batch attribute -> its padding value."""
FRAME_MULTIPLE, TOKEN_MULTIPLE = 32, 8
"""Training batches are padded to multiples of these, so that their shapes recur. On a CPU, oneDNN compiles kernels for
each new shape: with batches padded to their longest clip, a step takes half as long again (`benchmarks/shapes.py`)."""


@dataclass(frozen=True)
class ReferenceClip:
    """Speaker vector and mel excerpt that a clip is conditioned on.

    Attributes:
        vector: (V,) speaker vector of unit length.
        mel: (R, M) log-mel of at most `REFERENCE_FRAMES` frames; empty if there is no reference.
        position: Store position of the clip that the excerpt is from.
    """

    vector: np.ndarray
    mel: np.ndarray
    position: int


def round_up(sizes: Sizes, multiple: int) -> Sizes:
    """Rounds integers, one or an array of them, up to multiples of `multiple`."""
    return -(-sizes // multiple) * multiple


def collate(
    clips: Sequence[ClipFeatures], statistics: Statistics, speakers: Sequence[str], references: Sequence[ReferenceClip]
) -> Batch:
    """Pads clips to a batch and standardizes pitch and energy.

    Args:
        clips: At least one clip.
        statistics: Statistics of the clips' store.
        speakers: Speaker names of the store.
        references: Reference clip of each clip.
    """
    token_lengths = np.array([len(clip.ids) for clip in clips], dtype=np.int64)
    mel_lengths = np.array([len(clip.mel) for clip in clips], dtype=np.int64)
    size, longest, bands = len(clips), int(mel_lengths.max()), clips[0].mel.shape[1]
    ids = np.zeros((size, int(token_lengths.max()), 2), dtype=np.int64)
    mel = np.empty((size, longest, bands), dtype=np.float32)
    f0 = np.zeros((size, longest), dtype=np.float32)
    energy = np.zeros((size, longest), dtype=np.float32)
    for row, clip in enumerate(clips):
        frames = len(clip.mel)
        ids[row, : len(clip.ids)] = clip.ids
        mel[row, :frames] = clip.mel
        mel[row, frames:] = SILENCE
        f0[row, :frames] = clip.pitch
        energy[row, :frames] = (clip.energy - statistics.energy_mean) / statistics.energy_std
    voiced = f0 > 0
    scale = np.array([statistics.log_f0[speakers[clip.speaker]] for clip in clips], dtype=np.float32)  # (B, 2)
    pitch = np.where(voiced, (np.log(np.where(voiced, f0, 1.0)) - scale[:, :1]) / scale[:, 1:], 0.0)
    return Batch(
        ids=torch.from_numpy(ids),
        token_lengths=torch.from_numpy(token_lengths),
        mel=torch.from_numpy(mel),
        mel_lengths=torch.from_numpy(mel_lengths),
        pitch=torch.from_numpy(pitch.astype(np.float32, copy=False)),
        voiced=torch.from_numpy(voiced),
        energy=torch.from_numpy(energy),
        speaker_vector=torch.from_numpy(np.stack([item.vector for item in references]).astype(np.float32, copy=False)),
        speaker=torch.tensor([clip.speaker for clip in clips]),
        language=torch.tensor([clip.language for clip in clips]),
        clip_ids=[clip.id for clip in clips],
        reference_mel=torch.from_numpy(np.stack([pad_reference(item.mel) for item in references])),
        reference_lengths=torch.tensor([len(item.mel) for item in references]),
        reference_clip=torch.tensor([item.position for item in references]),
    )


def pad_batch(batch: Batch, tokens: int, frames: int) -> Batch:
    """Pads a batch further, to (B, `tokens`) and (B, `frames`); its lengths do not change."""
    padded: dict[str, Any] = {}
    for name, value in PADDING.items():
        tensor = getattr(batch, name)
        missing = (tokens if name == "ids" else frames) - tensor.shape[1]
        trailing = (0, 0) * (tensor.dim() - 2)
        padded[name] = F.pad(tensor, (*trailing, 0, missing), value=value)
    return replace(batch, **padded)


class TrainingBatches:
    """Endless iterator over training batches of a store's `train` split, which resumes at the exact batch.

    Each clip is conditioned on the speaker vector and an excerpt of *another* clip of its speaker, drawn from (seed,
    epoch, clip). Those of the clip itself would leak its content, which references at synthesis do not have.

    Drawing the clips of a batch and loading them are separate methods, so that batches can be loaded ahead
    (`loader.py`).

    Args:
        store: The features.
        batch_size: Maximum number of clips in a batch.
        seed: Seed of the order and the reference clips.
        max_frames: Maximum number of frames in a batch, padding included; 0 means no bound.
        min_size: Smallest number of clips in a batch, unless speakers are compared.
        clips_per_speaker: If positive, number of clips of each speaker in a batch (see `SpeakerBatchSampler`).

    Attributes:
        positions: Store positions of the training clips, to which the sampler's indices refer.
        sampler: Sampler of the batches.
        streamed: Whether training reads remote shards that do not fit the cache together.
        compares_speakers: Whether `clips_per_speaker` is positive.

    Raises:
        FeatureError: the train split is empty, or no batch allows a comparison of speakers.
    """

    sampler: BatchSampler

    def __init__(
        self,
        store: FeatureStore,
        batch_size: int,
        seed: int,
        *,
        max_frames: int = 0,
        min_size: int = 1,
        clips_per_speaker: int = 0,
    ) -> None:
        self.store = store
        self.seed = seed
        self.positions = store.split("train")
        if not self.positions:
            raise FeatureError(f"{store.path}: no clip is in the train split; run `dvc repro`, then build the features")
        rows = store.clips.rows[self.positions]
        frames = round_up(rows["frames"], FRAME_MULTIPLE)
        self.streamed = store.max_resident_shards < len(store.index.shards)
        self.compares_speakers = clips_per_speaker > 0
        if self.compares_speakers:
            self.sampler = self._speaker_sampler(frames, rows["speaker"], batch_size, clips_per_speaker, max_frames)
        else:
            self.sampler = BatchSampler(
                frames,
                batch_size,
                seed,
                max_frames=max_frames,
                min_size=min_size,
                shards=rows["shard"] if self.streamed else None,
                max_resident_shards=store.max_resident_shards,
            )

    def _speaker_sampler(
        self, frames: np.ndarray, speakers: np.ndarray, batch_size: int, clips_per_speaker: int, max_frames: int
    ) -> SpeakerBatchSampler:
        path = self.store.path
        if self.streamed:
            raise FeatureError(
                f"{path}: its shards do not fit the cache, and batches that compare speakers draw from all of "
                "them; raise features.cache_megabytes, or disable loss.use_contrastive_speaker_loss"
            )
        sampler = SpeakerBatchSampler(
            frames,
            speakers,
            batch_size=batch_size,
            clips_per_speaker=clips_per_speaker,
            seed=self.seed,
            max_frames=max_frames,
        )
        without, batches = sampler.without_contrast, len(sampler.order(0))
        if without == batches:
            raise FeatureError(
                f"{path}: no batch holds two clips of one speaker and a clip of another, so speakers cannot be "
                "compared; add speakers or clips, raise training.batch_size, or disable "
                "loss.use_contrastive_speaker_loss"
            )
        log.info("%d of %d batches allow no comparison of speakers", without, batches)
        return sampler

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.load(*self.draw())

    def draw(self) -> tuple[list[int], int]:
        """Draws the next batch; returns the store positions of its clips, and the epoch."""
        chosen = next(self.sampler)
        return [self.positions[i] for i in chosen], self.sampler.epoch

    def load(self, positions: Sequence[int], epoch: int) -> Batch:
        """Loads the clips at these store positions as a batch. Deterministic and thread-safe."""
        clips = [self.store.clip(position) for position in positions]
        references = [self._reference_clip(position, epoch) for position in positions]
        batch = collate(clips, self.store.statistics, self.store.speakers, references)
        tokens, frames = batch.ids.shape[1], batch.mel.shape[1]
        return pad_batch(batch, round_up(tokens, TOKEN_MULTIPLE), round_up(frames, FRAME_MULTIPLE))

    def reference_position(self, position: int, epoch: int) -> int:
        """Draws the store position of the reference clip of a clip; its own for a speaker's only clip."""
        speaker = self.store.clips[position].speaker
        candidates = self._same_shard_clips[position] if self.streamed else self.store.clips_of_speaker[speaker]
        if len(candidates) == 1:
            return position
        generator = np.random.default_rng([self.seed, epoch, position])
        drawn = int(generator.integers(len(candidates) - 1))
        return candidates[drawn + (drawn >= bisect_left(candidates, position))]  # skips the clip itself

    @cached_property
    def _same_shard_clips(self) -> dict[int, list[int]]:
        """Clip -> clips of its speaker in the same shard: other shards might have to be fetched."""
        rows = self.store.clips.rows[self.positions]
        keys = list(zip(rows["speaker"].tolist(), rows["shard"].tolist(), strict=True))
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for key, position in zip(keys, self.positions, strict=True):
            groups[key].append(position)
        return {position: groups[key] for key, position in zip(keys, self.positions, strict=True)}

    def _reference_clip(self, position: int, epoch: int) -> ReferenceClip:
        reference = self.reference_position(position, epoch)
        mel = self.store.clip(reference).mel
        generator = np.random.default_rng([self.seed, epoch, position, 1])
        start = int(generator.integers(max(len(mel) - REFERENCE_FRAMES, 0) + 1))
        excerpt = mel[:0] if reference == position else mel[start : start + REFERENCE_FRAMES]
        return ReferenceClip(self.store.speaker_vectors[reference], excerpt, reference)

    def state_dict(self) -> dict[str, int]:
        """Returns the state after the last batch drawn."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes after the batch at which `state` was taken."""
        self.sampler.load_state_dict(state)


def evaluation_batches(store: FeatureStore, split: str, batch_size: int) -> Iterator[Batch]:
    """Yields the clips of a split once, in order, as batches.

    Each clip is conditioned on its speaker's centroid without the clip itself, and on the beginning of the speaker's
    next clip.

    Raises:
        FeatureError: the split is empty.
    """
    positions = store.split(split)
    if not positions:
        raise FeatureError(f"{store.path}: no clip is in the {split} split; lower split.min_held_out or add data")
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        clips = [store.clip(position) for position in chosen]
        yield collate(clips, store.statistics, store.speakers, [_evaluation_reference(store, i) for i in chosen])


def _evaluation_reference(store: FeatureStore, position: int) -> ReferenceClip:
    speaker = store.clips[position].speaker
    own = store.clips_of_speaker[speaker]
    vector = store.speaker_centroid(speaker, without=position)
    reference = own[bisect_right(own, position) % len(own)]
    frames = 0 if reference == position else REFERENCE_FRAMES  # a speaker's only clip has no reference
    return ReferenceClip(vector, store.clip(reference).mel[:frames], reference)
