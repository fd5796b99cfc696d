"""Clips -> padded batches: bucketed by length and shuffled for training, in order for evaluation."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from model.acoustic.batch import REFERENCE_FRAMES, Batch, pad_reference
from model.audio import SILENCE
from model.errors import FeatureError
from model.features.sampling import BatchSampler, SpeakerBatchSampler
from model.features.statistics import Statistics
from model.features.store import ClipFeatures, FeatureStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceClip:
    """What a clip is conditioned on: a speaker vector (V,), and frames (R, M) of the clip at `position`, or none."""

    vector: np.ndarray
    mel: np.ndarray
    position: int


def collate(
    clips: Sequence[ClipFeatures], statistics: Statistics, speakers: Sequence[str], lent: Sequence[ReferenceClip]
) -> Batch:
    """Pad clips to one batch and normalise pitch and energy.

    Args:
        clips: At least one.
        statistics: Of the store they are from.
        speakers: The store's speaker names.
        lent: What each clip is conditioned on.
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
        torch.from_numpy(np.stack([item.vector for item in lent]).astype(np.float32, copy=False)),
        torch.tensor([clip.speaker for clip in clips]),
        torch.tensor([clip.language for clip in clips]),
        [clip.id for clip in clips],
        torch.from_numpy(np.stack([pad_reference(item.mel) for item in lent])),
        torch.tensor([len(item.mel) for item in lent]),
        torch.tensor([item.position for item in lent]),
    )


class TrainingBatches:
    """Endless training batches of a store's `train` split, resumable to the batch.

    Each clip is conditioned on the speaker vector and a stretch of *another* clip of its speaker, drawn from (seed,
    epoch, clip): of the clip itself they would carry its content along, which no reference at synthesis does.

    Drawing what a batch holds and loading it are apart, so that batches can be loaded ahead (`loader.py`).

    Args:
        store: Features.
        batch_size: Most clips of a batch.
        seed: Of order and references.
        max_frames: Most frames of a batch, padding included (0: no bound).
        clips_per_speaker: Above 0, batches hold so many clips of each of their speakers (see `SpeakerBatchSampler`).

    Raises:
        FeatureError: no clip to train on, or no batch in which speakers could be compared.
    """

    def __init__(
        self, store: FeatureStore, batch_size: int, seed: int, max_frames: int = 0, clips_per_speaker: int = 0
    ) -> None:
        self.store = store
        self.seed = seed
        self.positions = store.split("train")
        if not self.positions:
            raise FeatureError(f"{store.path}: no clip is in the train split; run `dvc repro`, then build the features")
        rows = store.clips.rows[self.positions]
        lengths = rows["frames"].astype(np.int64)
        self.streamed = store.shards_at_once < len(store.index.shards)
        self.compares_speakers = clips_per_speaker > 0
        if not clips_per_speaker:
            groups = rows["shard"] if self.streamed else ()
            self.sampler = BatchSampler(lengths, batch_size, seed, max_frames, groups, store.shards_at_once)
            return
        if self.streamed:
            raise FeatureError(
                f"{store.path}: its shards do not fit the cache, and batches that compare speakers draw from all of "
                "them; raise features.cache_megabytes, or drop loss.use_contrastive_speaker_loss"
            )
        speakers = rows["speaker"].tolist()
        self.sampler = SpeakerBatchSampler(lengths, speakers, batch_size, clips_per_speaker, seed, max_frames)
        without, batches = self.sampler.without_contrast, len(self.sampler.order(0))
        if without == batches:
            raise FeatureError(
                f"{store.path}: no batch holds two clips of one speaker beside another speaker, so speakers cannot be "
                "compared; add speakers or clips, raise training.batch_size, or drop loss.use_contrastive_speaker_loss"
            )
        log.info("%d of %d batches have no two speakers to compare", without, batches)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.load(*self.draw())

    def draw(self) -> tuple[list[int], int]:
        """Positions in the store of the next batch's clips, and the epoch they are drawn in."""
        chosen = next(self.sampler)
        return [self.positions[i] for i in chosen], self.sampler.epoch

    def load(self, positions: Sequence[int], epoch: int) -> Batch:
        """The clips at these positions as a batch; the same for the same arguments, from any thread."""
        clips = [self.store.clip(position) for position in positions]
        lent = [self._lent_to(position, epoch) for position in positions]
        return collate(clips, self.store.statistics, self.store.speakers, lent)

    def reference_of(self, position: int, epoch: int) -> int:
        """Position of the clip that lends its speaker vector and a stretch to a clip in an epoch."""
        speaker = self.store.clips[position].speaker
        own = self._at_hand[position] if self.streamed else self.store.clips_of_speaker[speaker]
        if len(own) == 1:
            return position
        generator = np.random.default_rng([self.seed, epoch, position])
        drawn = int(generator.integers(len(own) - 1))
        return own[drawn + (drawn >= bisect_left(own, position))]  # steps over the clip itself

    @cached_property
    def _at_hand(self) -> dict[int, list[int]]:
        """Clip -> those of its speaker in the same shard: reading from another could mean fetching it."""
        rows = self.store.clips.rows[self.positions]
        together: dict[tuple[int, int], list[int]] = defaultdict(list)
        places = list(zip(rows["speaker"].tolist(), rows["shard"].tolist(), strict=True))
        for place, position in zip(places, self.positions, strict=True):
            together[place].append(position)
        return {position: together[place] for place, position in zip(places, self.positions, strict=True)}

    def _lent_to(self, position: int, epoch: int) -> ReferenceClip:
        reference = self.reference_of(position, epoch)
        mel = self.store.clip(reference).mel
        generator = np.random.default_rng([self.seed, epoch, position, 1])
        start = int(generator.integers(max(len(mel) - REFERENCE_FRAMES, 0) + 1))
        frames = mel[:0] if reference == position else mel[start : start + REFERENCE_FRAMES]
        return ReferenceClip(self.store.speaker_vectors[reference], frames, reference)

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.load_state_dict(state)


def evaluation_batches(store: FeatureStore, split: str, batch_size: int) -> Iterator[Batch]:
    """The clips of a split once, in order, each conditioned on its speaker's centroid and the beginning of the
    speaker's next clip (without the clip itself)."""
    positions = store.split(split)
    if not positions:
        raise FeatureError(f"{store.path}: no clip is in the {split} split; lower split.min_held_out or add data")
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        clips = [store.clip(position) for position in chosen]
        yield collate(clips, store.statistics, store.speakers, [_centroid_for(store, i) for i in chosen])


def _centroid_for(store: FeatureStore, position: int) -> ReferenceClip:
    speaker = store.clips[position].speaker
    own = store.clips_of_speaker[speaker]
    vector = store.speaker_centroid(speaker, without=position)
    reference = own[bisect_right(own, position) % len(own)]
    frames = 0 if reference == position else REFERENCE_FRAMES  # a clip that stands alone has no other to hear
    return ReferenceClip(vector, store.clip(reference).mel[:frames], reference)
