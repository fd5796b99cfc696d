"""Reads a feature store: memory-mapped shards, one clip at a time, and the statistics that go with them."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from model.audio.mel import extractor_hash
from model.config.data import AudioConfig
from model.errors import FeatureError
from model.features.index import SHARDS, SPEAKER_VECTORS, SPLITS, ClipTable, FeatureIndex
from model.features.shards import Shard, ShardCache, checksum_of, file_checksum
from model.features.statistics import Statistics
from model.text.symbols import symbols_hash


@dataclass(frozen=True)
class ClipFeatures:
    """What is known of one clip. The arrays are read-only views of the shards, except `ids`.

    Attributes:
        ids: (T, 2) int64: symbol, stress.
        mel: (S, M) float32 log-mel.
        pitch: (S,) float32 Hz, 0 where unvoiced.
        energy: (S,) float32 log energy.
        speaker_vector: (V,) float32, of unit length, from this very clip.
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

    Args:
        path: The folder.
        cache: Where the shards come from if they are not in the folder.

    Raises:
        FeatureError: index or shards are missing or do not fit each other.
    """

    def __init__(self, path: Path | str, cache: ShardCache | None = None) -> None:
        self.path = Path(path)
        self.cache = cache
        self.index = FeatureIndex.read(self.path)
        self.speaker_vectors = self._open_vectors()  # (clips, V)
        self._shards: dict[str, Shard] = {}
        self._lock = threading.Lock()
        missing = [name for name in self.index.shards if not cache and not (self.path / SHARDS / name).is_file()]
        if missing:
            raise FeatureError(
                f"{self.path / SHARDS / missing[0]}: missing ({len(missing)} of {len(self.index.shards)} shards); "
                "build the features again"
            )

    @classmethod
    def of(cls, features: Path | FeatureStore) -> FeatureStore:
        """The store in a folder; a store that was opened elsewhere (with a cache) as it is."""
        return features if isinstance(features, FeatureStore) else cls(features)

    @property
    def clips(self) -> ClipTable:
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
        rows = self.clips.rows
        counts = np.zeros((len(self.speakers), len(self.languages)), np.int64)
        np.add.at(counts, (rows["speaker"], rows["language"]), 1)
        return {name: self.languages[number] for name, number in zip(self.speakers, counts.argmax(axis=1), strict=True)}

    @cached_property
    def clips_of_speaker(self) -> dict[str, list[int]]:
        """Speaker -> positions of its training clips; of all its clips where it has none in training."""
        rows = self.clips.rows
        order = np.argsort(rows["speaker"], kind="stable")
        every = np.split(order, np.cumsum(np.bincount(rows["speaker"], minlength=len(self.speakers)))[:-1])
        training = rows["split"] == SPLITS.index("train")
        return {
            name: (own[training[own]] if training[own].any() else own).tolist()
            for name, own in zip(self.speakers, every, strict=True)
        }

    @property
    def trained_speakers(self) -> list[str]:
        """Speakers with a training clip, in the order of `speakers`."""
        training = self.clips.rows["speaker"][self.split("train")]
        return [self.speakers[number] for number in np.unique(training)]

    def split(self, name: str) -> list[int]:
        """Positions of the clips of a split, in order."""
        return np.flatnonzero(self.clips.rows["split"] == SPLITS.index(name)).tolist() if name in SPLITS else []

    def clip(self, position: int) -> ClipFeatures:
        entry = self.clips[position]
        shard = self._shard(entry.shard)
        frames = slice(entry.mel_start, entry.mel_start + entry.frames)
        tokens = slice(entry.token_start, entry.token_start + entry.tokens)
        row = self.clips.rows[position]
        return ClipFeatures(
            shard.tokens[tokens].astype(np.int64),
            shard.mel[frames],
            shard.pitch[frames],
            shard.energy[frames],
            self.speaker_vectors[position],
            int(row["speaker"]),
            int(row["language"]),
            entry.text,
            entry.id,
        )

    def speaker_centroid(self, name: str, without: int | None = None) -> np.ndarray:
        """Mean direction (V,) of a speaker's training clips (of all its clips where it has none in training).

        Args:
            name: The speaker.
            without: Position of a clip to leave out, unless it is the speaker's only one: nobody is cloned from the
                very clip that the result is compared with.
        """
        own, total = self.clips_of_speaker[name], self._vector_sums[name]
        if without is not None and len(own) > 1 and own[bisect_left(own, without) % len(own)] == without:
            total = total - self.speaker_vectors[without]
        return (total / np.linalg.norm(total)).astype(np.float32)

    @cached_property
    def _vector_sums(self) -> dict[str, np.ndarray]:
        """Speaker -> sum (V,) of the vectors that its centroid is made of: summed once, not for every clip."""
        return {name: self.speaker_vectors[own].sum(0, np.float64) for name, own in self.clips_of_speaker.items()}

    def check(self, audio: AudioConfig) -> None:
        """Make sure that these features fit mel settings and this version's symbol table, and that what no shard holds
        is whole (a shard is checked at its first use).

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
        self._compare({self.path / name: checksum for name, checksum in self.index.checksums.items()})

    def verify(self) -> None:
        """Compare every file that is here with its checksum (reads all of them).

        Raises:
            FeatureError: naming the files that differ.
        """
        shards = self.index.shards if self.cache is None else []
        wanted = {self.path / SHARDS / name: checksum_of(Path(name)) for name in shards}
        wanted |= {self.path / name: checksum for name, checksum in self.index.checksums.items()}
        self._compare(wanted)

    def _compare(self, wanted: dict[Path, str]) -> None:
        damaged = [path.name for path, checksum in wanted.items() if file_checksum(path) != checksum]
        if damaged:
            raise FeatureError(f"{self.path}: damaged: {', '.join(damaged)}; build the features again")

    @cached_property
    def shards_at_once(self) -> int:
        """How many shards can be mixed in training: all of them, or what the cache holds beside the next one."""
        if self.cache is None:
            return len(self.index.shards)
        frames = np.bincount(self.clips.rows["shard"], self.clips.rows["frames"], len(self.index.shards))
        largest = float(frames.max()) * (self.audio.n_mels + 2) * 4  # mel, pitch and energy are nearly all of it
        return max(1, int(self.cache.capacity / largest) - 1)

    def _shard(self, number: int) -> Shard:
        """A shard, opened and checked at its first use, so that a store opens as fast however large it is.

        Raises:
            FeatureError: the shard is damaged.
        """
        name = self.index.shards[number]
        if self.cache is None and name in self._shards:
            return self._shards[name]
        with self._lock:  # else a thread could open what another one is making room with
            path = self.path / SHARDS / name
            if self.cache is not None:
                path, gone = self.cache.get(name)
                for evicted in gone:
                    self._shards.pop(evicted, None)  # its disk space is free once nothing maps it
            if name not in self._shards:
                if self.cache is None and file_checksum(path) != checksum_of(path):
                    raise FeatureError(f"{path}: damaged (its checksum differs); build the features again")
                self._shards[name] = Shard(path)
            return self._shards[name]

    def _open_vectors(self) -> np.ndarray:
        path = self.path / SPEAKER_VECTORS
        try:
            # A plain view costs less at each slice than numpy's memmap type.
            vectors = np.load(path, mmap_mode="r").view(np.ndarray)
        except (OSError, ValueError, EOFError) as error:
            raise FeatureError(f"{path}: missing or damaged ({error}); build the features again") from error
        if len(vectors) != len(self.clips):
            raise FeatureError(f"{path}: {len(vectors)} vectors for {len(self.clips)} clips; build the features again")
        return vectors
