"""Corpus -> feature store: tokens, mel, pitch, energy and speaker vector of every clip, in a few large arrays."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from model.audio.io import AudioError, read_audio
from model.audio.mel import MelExtractor, extractor_hash, frame_energy
from model.audio.pitch import track_pitch
from model.audio.silence import speech_bounds
from model.config import Config
from model.corpus.manifest import Clip, read_manifest
from model.features.index import (
    SPEAKER_VECTORS,
    SPLITS,
    FeatureError,
    FeatureIndex,
    IndexedClip,
    Statistics,
    file_checksum,
    shard_name,
)
from model.speaker_encoder import SpeakerEncoder, SpeakerEncoderError
from model.text import TextError, encode, symbols_hash
from model.threads import single_threaded

log = logging.getLogger(__name__)

CHUNK = 16
"""Clips of one task. Fixed, so that the values do not depend on the number of workers."""
SECONDS_WORTH_A_WORKER = 900.0
"""Audio below which starting another process costs more than it saves."""


@dataclass(frozen=True)
class _Extracted:
    """Features of one clip on their way to the shards."""

    mel: np.ndarray
    pitch: np.ndarray
    energy: np.ndarray
    tokens: np.ndarray
    speaker_vector: np.ndarray
    seconds: float
    trimmed: float
    unknown: Counter


def build_features(
    corpus: Path, destination: Path, config: Config, progress: bool = False, workers: int = 0
) -> FeatureIndex:
    """Extract the features of a corpus.

    Args:
        corpus: Folder with a manifest whose clips have their split.
        destination: The feature store; replaced in one move once the new one is complete.
        config: Sections `audio` and `features` act.
        progress: Show a bar.
        workers: Processes; 0 takes as many as there are cores and work for. The result is the same for any number.

    Raises:
        FeatureError: the corpus has no clips or no splits, or a clip cannot be used; the message names it.
        ManifestError: the manifest is missing or malformed.
        SpeakerEncoderError: the pretrained weights are missing.
    """
    clips = _checked(read_manifest(corpus), corpus)
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writer = _ShardWriter(partial, config.features.shard_megabytes * 2**20)
    bar = tqdm(total=len(clips), unit="clip", desc="features", disable=None if progress else True, mininterval=1.0)
    with bar:
        for clip, extracted in zip(clips, _extract_all(corpus, clips, config, workers), strict=True):
            writer.add(clip, extracted)
            bar.update()
    index = writer.finish(config)
    if index.unknown_symbols:
        log.warning("characters without a symbol, left out of the token ids: %s", index.unknown_symbols)
    _move_into_place(partial, destination)
    return index


def _checked(clips: list[Clip], corpus: Path) -> list[Clip]:
    if not clips:
        raise FeatureError(f"{corpus}: the manifest has no clips; add recordings and run `dvc repro`")
    for clip in clips:
        if clip.split not in SPLITS:
            raise FeatureError(
                f"{corpus}: clip {clip.id} has the split {clip.split!r}, not one of {', '.join(SPLITS)}; "
                "features are built from the output of the split stage (`dvc repro`)"
            )
    return clips


def _extract_all(corpus: Path, clips: list[Clip], config: Config, workers: int) -> Iterator[_Extracted]:
    """Features of all clips, in order."""
    chunks = [(corpus, clips[i : i + CHUNK], config) for i in range(0, len(clips), CHUNK)]
    if not workers:
        seconds = sum(clip.seconds for clip in clips)
        workers = min(len(os.sched_getaffinity(0)), max(1, int(seconds // SECONDS_WORTH_A_WORKER)))
    if min(workers, len(chunks)) == 1:
        extractor = _Extractor(config)
        for chunk in chunks:
            with single_threaded():
                results = extractor.extract(*chunk[:2])
            yield from results
        return
    # Fresh processes: a fork of a process that has run torch threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context, initializer=_start_worker) as pool:
        try:
            for extracted in pool.map(_extract_chunk, chunks):
                yield from extracted
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # else an error would wait for all the work left
            raise


def _start_worker() -> None:
    torch.set_num_threads(1)


_worker_extractor: _Extractor | None = None


def _extract_chunk(task: tuple[Path, list[Clip], Config]) -> list[_Extracted]:
    global _worker_extractor  # one per process: it holds the speaker encoder's weights
    corpus, clips, config = task
    if _worker_extractor is None:
        _worker_extractor = _Extractor(config)
    return _worker_extractor.extract(corpus, clips)


class _Extractor:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.mel = MelExtractor(config.audio)
        self.speaker_encoder = SpeakerEncoder.load()

    def extract(self, corpus: Path, clips: list[Clip]) -> list[_Extracted]:
        audio, settings = self.config.audio, self.config.features
        spoken, prepared = [], []
        for clip in clips:
            try:
                samples = read_audio(corpus / clip.audio, audio.sample_rate)
                start, end = speech_bounds(samples, audio.sample_rate, settings.trim_silence_db, settings.trim_margin)
                samples = samples[start:end]
                tokens = encode(clip.text, clip.language)
                mel = self.mel.numpy(samples)
                if len(mel) < len(tokens.ids):
                    raise ValueError(f"{len(tokens.ids)} tokens cannot be spoken in {len(mel)} frames")
                pitch = track_pitch(samples, audio, settings)
            except (AudioError, TextError, ValueError) as error:
                raise FeatureError(
                    f"clip {clip.id}: {error}; run `dvc repro` so that validation sets it aside"
                ) from error
            spoken.append(samples)
            prepared.append((clip, tokens, mel, pitch, start / audio.sample_rate))
        try:
            vectors = self.speaker_encoder.embed_many(spoken, audio.sample_rate)
        except SpeakerEncoderError as error:
            raise FeatureError(f"clips {clips[0].id} to {clips[-1].id}: {error}") from error
        return [
            _Extracted(
                mel,
                pitch,
                frame_energy(mel),
                tokens.ids.astype(np.int16),
                vector,
                len(samples) / audio.sample_rate,
                trimmed,
                tokens.unknown,
            )
            for (_, tokens, mel, pitch, trimmed), samples, vector in zip(prepared, spoken, vectors, strict=True)
        ]


class _ShardWriter:
    """Gathers clips, closes a shard once it is full, and writes the index last."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder, self.capacity = folder, capacity
        self.clips: list[IndexedClip] = []
        self.vectors: list[np.ndarray] = []
        self.unknown: Counter = Counter()
        self.checksums: dict[str, str] = {}
        self.shard = 0
        self.moments = _Moments()
        self._empty()

    def add(self, clip: Clip, features: _Extracted) -> None:
        frames, tokens = len(features.mel), len(features.tokens)
        place = (self.shard, self.frames, frames, self.tokens, tokens)
        self.clips.append(
            IndexedClip(
                clip.id,
                clip.split,
                clip.text,
                clip.language,
                clip.speaker,
                *place,
                round(features.seconds, 6),
                round(features.trimmed, 6),
            )
        )
        for kind, array in self.pending.items():
            array.append(getattr(features, kind))
        self.vectors.append(features.speaker_vector)
        self.unknown += features.unknown
        self.moments.add(clip, features)
        self.frames += frames
        self.tokens += tokens
        self.bytes += features.mel.nbytes + features.pitch.nbytes + features.energy.nbytes
        if self.bytes >= self.capacity:
            self._close()

    def finish(self, config: Config) -> FeatureIndex:
        if self.frames:
            self._close()
        self._save(SPEAKER_VECTORS, np.stack(self.vectors))
        speakers = sorted({clip.speaker for clip in self.clips})
        index = FeatureIndex(
            extractor_hash=extractor_hash(config.audio),
            symbols_hash=symbols_hash(),
            audio=config.audio,
            features=config.features,
            speakers=speakers,
            languages=sorted({clip.language for clip in self.clips}),
            statistics=self.moments.statistics(speakers),
            unknown_symbols=dict(sorted(self.unknown.items())),
            clips=self.clips,
            checksums=self.checksums,
        )
        index.write(self.folder)
        return index

    def _empty(self) -> None:
        self.pending: dict[str, list[np.ndarray]] = {"mel": [], "pitch": [], "energy": [], "tokens": []}
        self.frames = self.tokens = self.bytes = 0

    def _close(self) -> None:
        for kind, arrays in self.pending.items():
            self._save(shard_name(kind, self.shard), np.concatenate(arrays))
        self.shard += 1
        self._empty()

    def _save(self, name: str, array: np.ndarray) -> None:
        np.save(self.folder / name, array)
        self.checksums[name] = file_checksum(self.folder / name)


class _Moments:
    """Sums that the statistics come from; of training clips, and per speaker of all where none are in training."""

    def __init__(self) -> None:
        self.mel, self.energy = np.zeros(3), np.zeros(3)  # count, sum, sum of squares
        self.log_f0: dict[tuple[str, bool], np.ndarray] = {}

    def add(self, clip: Clip, features: _Extracted) -> None:
        training = clip.split == "train"
        if training:
            self.mel += _moments(features.mel)
            self.energy += _moments(features.energy)
        sums = self.log_f0.setdefault((clip.speaker, training), np.zeros(3))
        sums += _moments(np.log(features.pitch[features.pitch > 0]))

    def statistics(self, speakers: list[str]) -> Statistics:
        if not self.mel[0]:
            raise FeatureError("no clip is in the train split, so there is nothing to normalise by; split again")
        everyone = sum(self.log_f0.values(), np.zeros(3))
        log_f0 = {}
        for name in speakers:
            trained, held_out = (self.log_f0.get((name, training), np.zeros(3)) for training in (True, False))
            own = trained if trained[0] else held_out
            # A speaker of whom nothing is voiced (whispering, noise) is measured by everyone's pitch.
            log_f0[name] = _mean_and_deviation(own if own[0] else everyone)
        return Statistics(*_mean_and_deviation(self.mel), *_mean_and_deviation(self.energy), log_f0)


def _moments(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64).ravel()
    return np.array([wide.size, wide.sum(), wide @ wide])


def _mean_and_deviation(sums: np.ndarray) -> tuple[float, float]:
    if not sums[0]:
        return 0.0, 1.0
    mean = sums[1] / sums[0]
    return float(mean), float(max(np.sqrt(max(sums[2] / sums[0] - mean**2, 0.0)), 1e-3))


def _move_into_place(partial: Path, destination: Path) -> None:
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        os.replace(destination, old)
    os.replace(partial, destination)
    shutil.rmtree(old, ignore_errors=True)
