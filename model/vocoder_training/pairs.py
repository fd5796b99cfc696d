"""Training pairs of a vocoder: mels, extracted or predicted, with the samples of their recordings frame by frame.

An hour of speech takes 400 MB. The pairs are therefore memory-mapped from unnamed temporary files, which the operating
system caches as far as memory allows, and removes with the process.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.audio.io import read_audio
from model.audio.trimming import trim_and_normalize
from model.corpus.manifest import read_manifest
from model.errors import VocoderError
from model.features.batching import evaluation_batches
from model.features.index import IndexedClip
from model.features.store import FeatureStore
from model.voice import Voice

log = logging.getLogger(__name__)

PREDICTION_BATCH = 8
"""Clips per forward pass of the acoustic model."""


class PairingError(VocoderError):
    """Mels and recordings do not belong together, or are too short; the message names the clip and the fix."""


@dataclass(frozen=True)
class Pair:
    """A clip: log-mel (S, M) and the float32 samples (S * hop,) of its frames."""

    id: str
    mel: np.ndarray
    samples: np.ndarray


def recorded_pairs(store: FeatureStore, corpus: Path, split: str, folder: Path) -> list[Pair]:
    """Returns the clips of a split with the mels of their own recordings.

    Args:
        store: The features.
        corpus: Corpus that they were built from.
        split: `train`, `validation` or `test`.
        folder: Folder on the disk that holds the pairs.

    Raises:
        PairingError: a recording and its mel have different numbers of frames.
        OSError: the disk is full.
    """
    pairs = _allocate(store, split, folder)
    for position, clip, samples in _recordings(store, corpus, split):
        pairs[clip.id].mel[:], pairs[clip.id].samples[:] = store.clip(position).mel, samples
    return list(pairs.values())


@torch.no_grad()
def predicted_pairs(voice: Voice, store: FeatureStore, corpus: Path, split: str, folder: Path) -> list[Pair]:
    """Returns the clips of a split with the mels that the acoustic model predicts from their text.

    Prediction is teacher-forced with the clip's own durations (from the model's alignment of it), pitch and energy, so
    that every predicted frame corresponds to a recorded one. It runs on the device of the voice's model.

    Args:
        voice: Trained on these features.
        store, corpus, split, folder: As in `recorded_pairs`.

    Raises:
        PairingError: the voice was trained on other features, or a recording and its mel have different numbers of
            frames.
        OSError: the disk is full.
    """
    store.check(voice.config.audio)
    if voice.languages != store.languages:
        raise PairingError(f"{store.path}: its languages are {store.languages}, the voice's are {voice.languages}")
    device = next(voice.model.parameters()).device
    pairs = _allocate(store, split, folder)
    for batch in evaluation_batches(store, split, PREDICTION_BATCH):
        predicted = voice.model(batch.to(device)).mel.cpu().numpy()
        for index, name in enumerate(batch.clip_ids):
            pairs[name].mel[:] = voice.restore_variance(predicted[index, : int(batch.mel_lengths[index])])
    for _, clip, samples in _recordings(store, corpus, split):
        pairs[clip.id].samples[:] = samples
    return list(pairs.values())


def _allocate(store: FeatureStore, split: str, folder: Path) -> dict[str, Pair]:
    """Returns an uninitialized pair for each clip of a split, by clip, in two files on the folder's disk."""
    clips, hop = [store.clips[position] for position in store.split(split)], store.audio.hop_length
    if not clips:
        return {}
    total = sum(clip.frames for clip in clips)
    mels, samples = _unnamed_file(folder, (total, store.audio.n_mels)), _unnamed_file(folder, (total * hop,))
    pairs, end = {}, 0
    for clip in clips:
        start, end = end, end + clip.frames
        pairs[clip.id] = Pair(clip.id, mels[start:end], samples[start * hop : end * hop])
    return pairs


def _unnamed_file(folder: Path, shape: tuple[int, ...]) -> np.memmap:
    """Maps an unnamed float32 file of this shape on the folder's disk."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(
            file.fileno(), 0, 4 * int(np.prod(shape))
        )  # a full disk raises here, instead of SIGBUS on writing
        return np.memmap(file, np.float32, "r+", shape=shape)


def _recordings(store: FeatureStore, corpus: Path, split: str) -> Iterator[tuple[int, IndexedClip, np.ndarray]]:
    """Yields (position, clip, samples) of a split; the samples are trimmed and amplified like those of the features."""
    recordings = {clip.id: clip.audio for clip in read_manifest(corpus)}
    rate, hop = store.audio.sample_rate, store.audio.hop_length
    for position in store.split(split):
        clip = store.clips[position]
        if clip.id not in recordings:
            raise PairingError(f"{corpus}: no clip {clip.id}; give the corpus that {store.path} was built from")
        samples = read_audio(corpus / recordings[clip.id], rate)
        start = round(clip.trimmed * rate)
        samples = trim_and_normalize(samples, start, start + round(clip.seconds * rate), clip.gain)
        if len(samples) // hop != clip.frames:
            raise PairingError(
                f"clip {clip.id}: {len(samples) // hop} frames of recording, {clip.frames} of mel; "
                "the recordings changed since the features were built: build them again"
            )
        yield position, clip, samples[: clip.frames * hop]


class Segments:
    """Random segments of equal length. A batch is a function of (seed, step), so there is no state to save.

    Args:
        pairs: The clips.
        frames: Length of a segment.
        batch_size: Number of segments per step.
        seed: Seed of the random positions.

    Raises:
        PairingError: no clip is long enough.
    """

    def __init__(self, pairs: list[Pair], *, frames: int, batch_size: int, seed: int) -> None:
        long = [pair for pair in pairs if len(pair.mel) >= frames]
        if not long:
            raise PairingError(
                f"none of the {len(pairs)} clips has the {frames} frames of a segment; lower vocoder.segment_frames"
            )
        if len(long) < len(pairs):
            log.warning("%d clips are shorter than a segment of %d frames: left out", len(pairs) - len(long), frames)
        self.pairs, self.frames, self.batch_size, self.seed = long, frames, batch_size, seed
        self._ends = np.cumsum([len(pair.mel) - frames + 1 for pair in long])

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns mel (B, M, frames) and samples (B, 1, frames * hop) of a step; all positions are equally likely."""
        mels, segments = [], []
        for drawn in np.random.default_rng([self.seed, step]).integers(self._ends[-1], size=self.batch_size):
            index = int(np.searchsorted(self._ends, drawn, side="right"))
            pair = self.pairs[index]
            start = int(drawn - (self._ends[index - 1] if index else 0))
            hop = len(pair.samples) // len(pair.mel)
            mels.append(pair.mel[start : start + self.frames].T)
            segments.append(pair.samples[start * hop : (start + self.frames) * hop])
        return torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(segments))[:, None]
