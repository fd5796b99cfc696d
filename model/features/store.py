"""Reads a feature store: memory-mapped shards, one clip at a time, and the statistics that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from model.audio.mel import extractor_hash
from model.config.schema import AudioConfig
from model.features.index import (
    SHARD_KINDS,
    SPEAKER_VECTORS,
    FeatureError,
    FeatureIndex,
    IndexedClip,
    Statistics,
    file_checksum,
    shard_name,
)
from model.speaker_encoder import centroid
from model.text import symbols_hash


@dataclass(frozen=True)
class ClipFeatures:
    """What is known of one clip. The arrays are read-only views of the shards, except `ids`.

    Attributes:
        ids: (T, 2) int64: symbol, stress.
        mel: (S, M) float32 log-mel.
        pitch: (S,) float32 Hz, 0 where unvoiced.
        energy: (S,) float32 log energy.
        speaker_vector: (256,) float32, of unit length, from this very clip.
        speaker, language: Positions in the store's `speakers` and `languages`.
        text: What is said.
        id: As in the manifest.
    """

    ids: np.ndarray
    mel: np.ndarray
    pitch: np.ndarray
    energy: np.ndarray
    speaker_vector: np.ndarray
    speaker: int
    language: int
    text: str
    id: str


class FeatureStore:
    """A folder that `build_features` wrote.

    Raises:
        FeatureError: index or shards are missing or do not fit each other.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.index = FeatureIndex.read(self.path)
        shards = 1 + max(clip.shard for clip in self.index.clips)
        self._shards = {kind: [self._open(shard_name(kind, n)) for n in range(shards)] for kind in SHARD_KINDS}
        self.speaker_vectors = self._open(SPEAKER_VECTORS)  # (clips, 256)
        self._speaker_numbers = {name: number for number, name in enumerate(self.speakers)}
        self._language_numbers = {name: number for number, name in enumerate(self.languages)}
        self._check_extents()

    @property
    def clips(self) -> list[IndexedClip]:
        return self.index.clips

    @property
    def speakers(self) -> list[str]:
        return self.index.speakers

    @property
    def languages(self) -> list[str]:
        return self.index.languages

    @property
    def audio(self) -> AudioConfig:
        return self.index.audio

    @property
    def statistics(self) -> Statistics:
        return self.index.statistics

    @property
    def content_hash(self) -> str:
        return self.index.content_hash

    @cached_property
    def speaker_languages(self) -> dict[str, str]:
        """Speaker -> the language of most of its clips."""
        spoken: dict[str, list[str]] = {name: [] for name in self.speakers}
        for clip in self.clips:
            spoken[clip.speaker].append(clip.language)
        return {name: max(sorted(set(own)), key=own.count) for name, own in spoken.items()}

    @cached_property
    def clips_of_speaker(self) -> dict[str, list[int]]:
        """Speaker -> positions of its training clips; of all its clips where it has none in training."""
        every: dict[str, list[int]] = {name: [] for name in self.speakers}
        for position, clip in enumerate(self.clips):
            every[clip.speaker].append(position)
        return {name: [i for i in own if self.clips[i].split == "train"] or own for name, own in every.items()}

    def split(self, name: str) -> list[int]:
        """Positions of the clips of a split, in order."""
        return [position for position, clip in enumerate(self.clips) if clip.split == name]

    def clip(self, position: int) -> ClipFeatures:
        entry = self.clips[position]
        frames = slice(entry.mel_start, entry.mel_start + entry.frames)
        tokens = slice(entry.token_start, entry.token_start + entry.tokens)
        mel, pitch, energy, ids = (self._shards[kind][entry.shard] for kind in SHARD_KINDS)
        return ClipFeatures(
            ids[tokens].astype(np.int64),
            mel[frames],
            pitch[frames],
            energy[frames],
            self.speaker_vectors[position],
            self._speaker_numbers[entry.speaker],
            self._language_numbers[entry.language],
            entry.text,
            entry.id,
        )

    def speaker_centroid(self, name: str, without: int | None = None) -> np.ndarray:
        """Mean direction (256,) of a speaker's training clips (of all its clips where it has none in training).

        Args:
            name: The speaker.
            without: Position of a clip to leave out, unless it is the speaker's only one: nobody is cloned from the
                very clip that the result is compared with.
        """
        own = self.clips_of_speaker[name]
        return centroid(self.speaker_vectors[[position for position in own if position != without] or own])

    def check(self, audio: AudioConfig) -> None:
        """Make sure that these features fit mel settings and this version's symbol table.

        Raises:
            FeatureError: naming both sides.
        """
        if extractor_hash(audio) != self.index.extractor_hash:
            made, asked = self.audio.model_dump(), audio.model_dump()
            differing = ", ".join(f"audio.{k} {made[k]} there, {asked[k]} here" for k in made if made[k] != asked[k])
            raise FeatureError(
                f"{self.path}: made by extractor {self.index.extractor_hash}, but the settings ask for "
                f"{extractor_hash(audio)} ({differing}); build the features again with these settings, or set them back"
            )
        if symbols_hash() != self.index.symbols_hash:
            raise FeatureError(
                f"{self.path}: token ids of symbol table {self.index.symbols_hash}, but this version has "
                f"{symbols_hash()}; build the features again"
            )

    def verify(self) -> None:
        """Compare every file with its checksum (reads all of them).

        Raises:
            FeatureError: naming the files that differ.
        """
        damaged = [name for name, wanted in self.index.checksums.items() if file_checksum(self.path / name) != wanted]
        if damaged:
            raise FeatureError(f"{self.path}: damaged: {', '.join(damaged)}; build the features again")

    def _open(self, name: str) -> np.ndarray:
        path = self.path / name
        try:
            # A plain view costs less at each slice than numpy's memmap type.
            return np.load(path, mmap_mode="r").view(np.ndarray)
        except (OSError, ValueError, EOFError) as error:
            raise FeatureError(f"{path}: missing or damaged ({error}); build the features again") from error

    def _check_extents(self) -> None:
        frames, tokens = [0] * len(self._shards["mel"]), [0] * len(self._shards["mel"])
        for clip in self.clips:
            frames[clip.shard] = max(frames[clip.shard], clip.mel_start + clip.frames)
            tokens[clip.shard] = max(tokens[clip.shard], clip.token_start + clip.tokens)
        for kind, arrays in self._shards.items():
            wanted = tokens if kind == "tokens" else frames
            for number, (array, length) in enumerate(zip(arrays, wanted, strict=True)):
                if len(array) != length:
                    raise FeatureError(
                        f"{self.path / shard_name(kind, number)}: holds {len(array)} rows, but the index needs "
                        f"{length}; build the features again"
                    )
        if len(self.speaker_vectors) != len(self.clips):
            raise FeatureError(
                f"{self.path / SPEAKER_VECTORS}: {len(self.speaker_vectors)} vectors for {len(self.clips)} clips"
            )
