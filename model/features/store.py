"""Feature store: reads clips from memory-mapped shards, with their index and statistics."""

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
from model.features.index import SHARDS, SPEAKER_VECTORS, SPLITS, ClipTable, FeatureIndex, load_array
from model.features.shards import Shard, ShardCache, checksum_in_name
from model.features.statistics import Statistics
from model.files import sha256_of_file
from model.text.symbols import symbols_hash


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """Features of one clip. The arrays except `ids` are read-only views of the shards.

    Attributes:
        ids: (T, 2) int64 symbol and stress.
        mel: (S, M) float32 log-mel.
        pitch: (S,) float32 Hz, 0 where unvoiced.
        energy: (S,) float32 log energy.
        speaker_vector: (V,) float32 of unit length, computed from this clip.
        speaker, language: Positions in the store's `speakers` and `languages`.
        text: Transcript.
        id: Clip id, as in the manifest.
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
    """Reader of the folder that `build_features` writes. Opens and checks each shard when it is first used.

    Args:
        path: The folder.
        cache: Cache of the shards if they are remote.

    Raises:
        FeatureError: the index or a shard is missing, or they do not match.
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
        """Opens the store in a folder; returns a store as it is."""
        return features if isinstance(features, FeatureStore) else cls(features)

    @property
    def clips(self) -> ClipTable:
        """The clips, in the order of the manifest."""
        return self.index.clips

    @property
    def speakers(self) -> list[str]:
        """Names of the speakers."""
        return self.index.speakers

    @property
    def languages(self) -> list[str]:
        """Names of the languages."""
        return self.index.languages

    @property
    def audio(self) -> AudioConfig:
        """Mel settings of the features."""
        return self.index.audio

    @property
    def statistics(self) -> Statistics:
        """Statistics for normalization."""
        return self.index.statistics

    @property
    def content_hash(self) -> str:
        """See `FeatureIndex.content_hash`."""
        return self.index.content_hash

    @cached_property
    def speaker_languages(self) -> dict[str, str]:
        """Speaker -> language of most of its clips."""
        rows = self.clips.rows
        counts = np.zeros((len(self.speakers), len(self.languages)), np.int64)
        np.add.at(counts, (rows["speaker"], rows["language"]), 1)
        return {name: self.languages[number] for name, number in zip(self.speakers, counts.argmax(axis=1), strict=True)}

    @cached_property
    def clips_of_speaker(self) -> dict[str, list[int]]:
        """Speaker -> positions of its training clips, or of all its clips if it has no training clip."""
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
        """Speakers that have a training clip, in the order of `speakers`."""
        training = self.clips.rows["speaker"][self.split("train")]
        return [self.speakers[number] for number in np.unique(training)]

    def split(self, name: str) -> list[int]:
        """Returns the positions of the clips of a split, in order; none for an unknown split."""
        return np.flatnonzero(self.clips.rows["split"] == SPLITS.index(name)).tolist() if name in SPLITS else []

    def clip(self, position: int) -> ClipFeatures:
        """Reads the features of a clip.

        Raises:
            FeatureError: its shard is damaged or cannot be fetched.
        """
        entry = self.clips[position]
        shard = self._shard(entry.shard)
        frames = slice(entry.mel_start, entry.mel_start + entry.frames)
        tokens = slice(entry.token_start, entry.token_start + entry.tokens)
        row = self.clips.rows[position]
        return ClipFeatures(
            ids=shard.tokens[tokens].astype(np.int64),
            mel=shard.mel[frames],
            pitch=shard.pitch[frames],
            energy=shard.energy[frames],
            speaker_vector=self.speaker_vectors[position],
            speaker=int(row["speaker"]),
            language=int(row["language"]),
            text=entry.text,
            id=entry.id,
        )

    def speaker_centroid(self, name: str, without: int | None = None) -> np.ndarray:
        """Returns the mean direction (V,) of the speaker vectors of `clips_of_speaker`.

        Args:
            name: The speaker.
            without: Position of a clip to leave out unless it is the only one, so that synthesis of the clip is not
                conditioned on the recording it is compared with.
        """
        own, total = self.clips_of_speaker[name], self._vector_sums[name]
        if without is not None and len(own) > 1 and own[bisect_left(own, without) % len(own)] == without:
            total = total - self.speaker_vectors[without]
        return (total / np.linalg.norm(total)).astype(np.float32)

    @cached_property
    def _vector_sums(self) -> dict[str, np.ndarray]:
        """Speaker -> sum (V,) of the speaker vectors of `clips_of_speaker`, cached for the centroids."""
        return {name: self.speaker_vectors[own].sum(0, np.float64) for name, own in self.clips_of_speaker.items()}

    def check(self, audio: AudioConfig) -> None:
        """Checks that the features match mel settings and the symbol table, and all files except the shards.

        Raises:
            FeatureError: they do not match (the message names both sides), or a file is damaged.
        """
        if extractor_hash(audio) != self.index.extractor_hash:
            made, asked = self.audio.model_dump(), audio.model_dump()
            differing = ", ".join(f"audio.{k} {made[k]} there, {asked[k]} here" for k in made if made[k] != asked[k])
            raise FeatureError(
                f"{self.path}: made by extractor {self.index.extractor_hash}, but the settings require "
                f"{extractor_hash(audio)} ({differing}); build the features again with these settings, or set them back"
            )
        if symbols_hash() != self.index.symbols_hash:
            raise FeatureError(
                f"{self.path}: token ids of symbol table {self.index.symbols_hash}, but this version has "
                f"{symbols_hash()}; build the features again"
            )
        self._compare({self.path / name: checksum for name, checksum in self.index.checksums.items()})

    def verify(self) -> None:
        """Compares all local files with their checksums.

        Raises:
            FeatureError: files differ; the message names them.
        """
        shards = self.index.shards if self.cache is None else []
        checksums = {self.path / SHARDS / name: checksum_in_name(Path(name)) for name in shards}
        checksums |= {self.path / name: checksum for name, checksum in self.index.checksums.items()}
        self._compare(checksums)

    def _compare(self, checksums: dict[Path, str]) -> None:
        damaged = [path.name for path, checksum in checksums.items() if sha256_of_file(path) != checksum]
        if damaged:
            raise FeatureError(f"{self.path}: damaged: {', '.join(damaged)}; build the features again")

    @cached_property
    def max_resident_shards(self) -> int:
        """Number of shards that training can draw from at the same time: all, or one less than the cache holds."""
        if self.cache is None:
            return len(self.index.shards)
        frames = np.bincount(self.clips.rows["shard"], self.clips.rows["frames"], len(self.index.shards))
        largest = float(frames.max()) * (self.audio.n_mels + 2) * 4  # mel, pitch and energy make up most of a shard
        return max(1, int(self.cache.capacity / largest) - 1)

    def _shard(self, number: int) -> Shard:
        """Returns a shard; opens, and checks it, at its first use."""
        name = self.index.shards[number]
        if self.cache is None and name in self._shards:
            return self._shards[name]
        with self._lock:  # another thread must not evict a shard between fetching and opening it
            path = self.path / SHARDS / name
            if self.cache is not None:
                path, evicted = self.cache.get(name)
                for other in evicted:
                    self._shards.pop(other, None)  # the disk space is released once the file is no longer mapped
            if name not in self._shards:
                if self.cache is None and sha256_of_file(path) != checksum_in_name(path):
                    raise FeatureError(f"{path}: damaged (its checksum differs); build the features again")
                self._shards[name] = Shard(path)
            return self._shards[name]

    def _open_vectors(self) -> np.ndarray:
        path = self.path / SPEAKER_VECTORS
        try:
            # Slicing a plain view is faster than slicing numpy's memmap type.
            vectors = load_array(path, "r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise FeatureError(f"{path}: missing or damaged ({error}); build the features again") from error
        if len(vectors) != len(self.clips):
            raise FeatureError(f"{path}: {len(vectors)} vectors for {len(self.clips)} clips; build the features again")
        return vectors
