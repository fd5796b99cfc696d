"""Clips -> padded batches: bucketed by length and shuffled for training, in order for evaluation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from model.audio.mel import SILENCE
from model.features.index import FeatureError, Statistics
from model.features.store import ClipFeatures, FeatureStore

BUCKET_BATCHES = 8
"""Clips are sorted by length within stretches of so many batches: little padding, and still another mix each epoch."""


@dataclass
class Batch:
    """B clips, padded to the longest. Only the lengths tell padding from content.

    Attributes:
        ids: (B, T, 2) int64 symbol and stress; 0 in the padding.
        token_lengths: (B,) int64.
        mel: (B, S, M) float32 raw log-mel; silence, log(1e-5), in the padding.
        mel_lengths: (B,) int64.
        pitch: (B, S) float32 log F0 in deviations from the speaker's mean; 0 where unvoiced and in the padding.
        voiced: (B, S) bool; False in the padding.
        energy: (B, S) float32 log energy in deviations from the mean; 0 in the padding.
        speaker_vector: (B, 256) float32, unit length; never the clip's own in training, where there is another.
        speaker, language: (B,) int64 positions in the store's lists.
        clip_ids: B names.
    """

    ids: Tensor
    token_lengths: Tensor
    mel: Tensor
    mel_lengths: Tensor
    pitch: Tensor
    voiced: Tensor
    energy: Tensor
    speaker_vector: Tensor
    speaker: Tensor
    language: Tensor
    clip_ids: list[str]

    def to(self, device: torch.device | str) -> Batch:
        names = [field.name for field in fields(self) if field.name != "clip_ids"]
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def collate(
    clips: Sequence[ClipFeatures], statistics: Statistics, speakers: Sequence[str], vectors: Sequence[np.ndarray]
) -> Batch:
    """Pad clips to one batch and normalise pitch and energy.

    Args:
        clips: At least one.
        statistics: Of the store they are from.
        speakers: The store's speaker names.
        vectors: (256,) speaker vector to condition each clip on.
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
        torch.from_numpy(ids),
        torch.from_numpy(token_lengths),
        torch.from_numpy(mel),
        torch.from_numpy(mel_lengths),
        torch.from_numpy(pitch.astype(np.float32, copy=False)),
        torch.from_numpy(voiced),
        torch.from_numpy(energy),
        torch.from_numpy(np.stack(vectors).astype(np.float32, copy=False)),
        torch.tensor([clip.speaker for clip in clips]),
        torch.tensor([clip.language for clip in clips]),
        [clip.id for clip in clips],
    )


class BatchSampler:
    """Endless batches of positions: every clip exactly once per epoch, clips of like length together.

    The order of an epoch is a function of (seed, epoch) alone, so that (epoch, position) is all there is to resume.

    Args:
        lengths: Frames of each clip.
        batch_size: Most clips of a batch.
        seed: Of the order.
        max_frames: Most frames of a batch, padding included (0: no bound). A single clip above it is a batch by itself.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, max_frames: int = 0) -> None:
        if not len(lengths):
            raise FeatureError("no clips to draw batches from; the split is empty")
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.max_frames = max_frames or len(self.lengths) * int(self.lengths.max())
        self.seed = seed
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
        shuffled = generator.permutation(len(self.lengths))
        batches = []
        for bucket in np.array_split(shuffled, _ceil(len(shuffled), self.batch_size * BUCKET_BATCHES)):
            batches += self._pack(bucket[np.argsort(-self.lengths[bucket], kind="stable")].tolist())
        return [batches[i] for i in generator.permutation(len(batches))]

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


class TrainingBatches:
    """Endless training batches of a store's `train` split, resumable to the batch.

    Each clip is conditioned on the speaker vector of *another* clip of its speaker, drawn from (seed, epoch, clip): a
    vector of the clip itself would carry its content along, which no reference at synthesis does.
    """

    def __init__(self, store: FeatureStore, batch_size: int, seed: int, max_frames: int = 0) -> None:
        self.store = store
        self.positions = store.split("train")
        if not self.positions:
            raise FeatureError(f"{store.path}: no clip is in the train split; run `dvc repro`, then build the features")
        lengths = [store.clips[position].frames for position in self.positions]
        self.sampler = BatchSampler(lengths, batch_size, seed, max_frames)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        chosen = [self.positions[i] for i in next(self.sampler)]
        vectors = [self.store.speaker_vectors[self.reference_of(position)] for position in chosen]
        clips = [self.store.clip(position) for position in chosen]
        return collate(clips, self.store.statistics, self.store.speakers, vectors)

    def reference_of(self, position: int) -> int:
        """Position of the clip that lends its speaker vector to a clip in the running epoch."""
        own = self.store.clips_of_speaker[self.store.clips[position].speaker]
        if len(own) == 1:
            return own[0]
        generator = np.random.default_rng([self.sampler.seed, self.sampler.epoch, position])
        drawn = int(generator.integers(len(own) - 1))
        return own[drawn + (drawn >= bisect_left(own, position))]  # steps over the clip itself

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.load_state_dict(state)


def evaluation_batches(store: FeatureStore, split: str, batch_size: int) -> Iterator[Batch]:
    """The clips of a split once, in order, each conditioned on its speaker's centroid (without the clip itself)."""
    positions = store.split(split)
    if not positions:
        raise FeatureError(f"{store.path}: no clip is in the {split} split; lower split.min_held_out or add data")
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        vectors = [store.speaker_centroid(store.clips[position].speaker, without=position) for position in chosen]
        clips = [store.clip(position) for position in chosen]
        yield collate(clips, store.statistics, store.speakers, vectors)
