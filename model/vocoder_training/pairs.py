"""What a vocoder learns from: mels, the corpus's own or predicted ones, frame by frame beside the recordings.

An hour of speech is 400 MB of them. So they lie in files without a name, which the system keeps in memory as far as
there is room, and which are gone with the process.
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
from model.features.store import FeatureStore
from model.voice import Voice

log = logging.getLogger(__name__)


PREDICTION_BATCH = 8


class PairingError(VocoderError):
    """Mels and recordings do not belong together, or are too short; the message names the clip and the cure."""


@dataclass(frozen=True)
class Pair:
    """A clip: mel (S, M) log-mel, and the samples (S * hop,) float32 that its frames stand for."""

    id: str
    mel: np.ndarray
    samples: np.ndarray


def recorded_pairs(store: FeatureStore, corpus: Path, split: str, folder: Path) -> list[Pair]:
    """The clips of a split with the mels of their own recordings.

    Args:
        store: The features.
        corpus: Corpus that they were built from.
        split: `train`, `validation` or `test`.
        folder: Whose disk the pairs are kept on.

    Raises:
        PairingError: a recording does not have the frames of its mel.
        OSError: the disk has no room for them.
    """
    pairs = _room_for(store, split, folder)
    for position, clip, samples in _recordings(store, corpus, split):
        pairs[clip.id].mel[:], pairs[clip.id].samples[:] = store.clip(position).mel, samples
    return list(pairs.values())


@torch.no_grad()
def predicted_pairs(voice: Voice, store: FeatureStore, corpus: Path, split: str, folder: Path) -> list[Pair]:
    """The clips of a split with the mels that the acoustic model makes of their text.

    Teacher-forced: with the clip's own durations (from the model's alignment of it), pitch and energy, dropout off,
    in the voice's own vector of the speaker. So every predicted frame stands where the recorded one does. Computed on
    the device of the voice's model.

    Args:
        voice: Trained on these features.
        store, corpus, split, folder: As of `recorded_pairs`.

    Raises:
        PairingError: the voice was trained on other features, or a recording does not have the frames of its mel.
        OSError: the disk has no room for them.
    """
    store.check(voice.config.audio)
    if voice.languages != store.languages:
        raise PairingError(f"{store.path}: its languages are {store.languages}, the voice's are {voice.languages}")
    device = next(voice.model.parameters()).device
    pairs = _room_for(store, split, folder)
    for batch in evaluation_batches(store, split, PREDICTION_BATCH):
        predicted = voice.model(batch.to(device)).mel.cpu().numpy()
        for index, name in enumerate(batch.clip_ids):
            pairs[name].mel[:] = voice.restore_variance(predicted[index, : int(batch.mel_lengths[index])])
    for _, clip, samples in _recordings(store, corpus, split):
        pairs[clip.id].samples[:] = samples
    return list(pairs.values())


def _room_for(store: FeatureStore, split: str, folder: Path) -> dict[str, Pair]:
    """Clip -> its pair in files of the folder's disk, one clip after the other, not filled yet."""
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
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, 4 * int(np.prod(shape)))  # a full disk says so here, and not by a signal
        return np.memmap(file, np.float32, "r+", shape=shape)


def _recordings(store: FeatureStore, corpus: Path, split: str) -> Iterator:
    """(position, clip, samples) of a split; the samples are trimmed, and as loud, as the features are."""
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
    """Random segments of equal length. Those of a step are a function of (seed, step), so there is no state to save.

    Args:
        pairs: The clips.
        frames: Length of a segment.
        batch_size: Segments of a step.
        seed: Of the draws.

    Raises:
        PairingError: no clip is long enough.
    """

    def __init__(self, pairs: list[Pair], frames: int, batch_size: int, seed: int) -> None:
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
        """mel (B, M, frames) and samples (B, 1, frames * hop) of a step; every start is equally likely."""
        mels, sounds = [], []
        for drawn in np.random.default_rng([self.seed, step]).integers(self._ends[-1], size=self.batch_size):
            index = int(np.searchsorted(self._ends, drawn, side="right"))
            pair = self.pairs[index]
            start = int(drawn - (self._ends[index - 1] if index else 0))
            hop = len(pair.samples) // len(pair.mel)
            mels.append(pair.mel[start : start + self.frames].T)
            sounds.append(pair.samples[start * hop : (start + self.frames) * hop])
        return torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(sounds))[:, None]
