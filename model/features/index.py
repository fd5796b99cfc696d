"""Index of a feature store: where each clip is stored, how the features were made, and the statistics.

`index.json` holds settings and statistics. The clips are rows of a numeric table (`clips.npy`); their ids and texts are
concatenated in one file (`names.txt`). An index of a hundred thousand clips opens in a fraction of a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from model.config import settings_hash
from model.config.data import AudioConfig, FeaturesConfig
from model.errors import FeatureError
from model.features.shards import reporting_write_errors
from model.features.statistics import Statistics
from model.files import atomic_write, read_record, sha256_of_file, write_json

FORMAT = 2
INDEX = "index.json"
CLIPS = "clips.npy"
NAMES = "names.txt"
SPEAKER_VECTORS = "speaker_vectors.npy"
SHARDS = "shards"
SPLITS = ("train", "validation", "test")

ROW = np.dtype(
    [
        ("digest", "S32"),
        ("split", "u1"),
        ("language", "<u2"),
        ("speaker", "<u4"),
        ("shard", "<u4"),
        ("mel_start", "<u8"),
        ("frames", "<u4"),
        ("token_start", "<u8"),
        ("tokens", "<u4"),
        ("samples", "<u4"),
        ("start", "<u4"),
        ("gain", "<f4"),
        ("id_end", "<u8"),
        ("text_end", "<u8"),
    ]
)
"""Row of one clip in `clips.npy`.

`split`, `language`, `speaker` and `shard` are positions in the index's lists. `id_end` and `text_end` are byte offsets
in `names.txt`, where the id of a clip follows the text of the previous one. The other columns are as in `RECORD`.
"""


@dataclass(frozen=True, kw_only=True)
class IndexedClip:
    """Index entry of one clip.

    Attributes:
        id: Clip id, as in the manifest.
        split: One of `SPLITS`.
        text: Transcript.
        language: espeak-ng voice name.
        speaker: Speaker name.
        shard: Position in the index's list of shards.
        mel_start: First frame in the shard's `mel`, `pitch` and `energy`.
        frames: Number of mel frames.
        token_start: First token in the shard's `tokens`.
        tokens: Number of tokens.
        seconds: Duration after trimming.
        trimmed: Seconds trimmed from the start. Times in the recording exceed times in the features by this.
        gain: Factor of loudness normalization (1 without `features.target_loudness`).
    """

    id: str
    split: str
    text: str
    language: str
    speaker: str
    shard: int
    mel_start: int
    frames: int
    token_start: int
    tokens: int
    seconds: float
    trimmed: float
    gain: float


class ClipTable:
    """The clips of an index, by column (`table.rows["frames"]`) or one at a time as `IndexedClip`.

    Args:
        rows: (clips,) of type `ROW`.
        names: Ids and texts, the content of `names.txt`.
        speakers, languages: Names that the rows refer to.
        sample_rate: Hz.
    """

    def __init__(
        self, rows: np.ndarray, names: bytes, *, speakers: list[str], languages: list[str], sample_rate: int
    ) -> None:
        self.rows = rows
        self.names = names
        self._speakers, self._languages, self._sample_rate = speakers, languages, sample_rate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> IndexedClip:
        position = range(len(self.rows))[position]
        row = self.rows[position]
        id_start = int(self.rows[position - 1]["text_end"]) if position else 0
        id_end, text_end = int(row["id_end"]), int(row["text_end"])
        return IndexedClip(
            id=self.names[id_start:id_end].decode(),
            split=SPLITS[row["split"]],
            text=self.names[id_end:text_end].decode(),
            language=self._languages[row["language"]],
            speaker=self._speakers[row["speaker"]],
            shard=int(row["shard"]),
            mel_start=int(row["mel_start"]),
            frames=int(row["frames"]),
            token_start=int(row["token_start"]),
            tokens=int(row["tokens"]),
            seconds=round(int(row["samples"]) / self._sample_rate, 6),
            trimmed=round(int(row["start"]) / self._sample_rate, 6),
            gain=float(row["gain"]),
        )

    def __iter__(self) -> Iterator[IndexedClip]:
        return (self[position] for position in range(len(self)))

    @property
    def seconds(self) -> float:
        """Total duration of the clips."""
        return float(self.rows["samples"].sum(dtype=np.int64)) / self._sample_rate

    def content_hash(self) -> str:
        """Returns a hash of the clips that does not depend on how they are packed into shards."""
        digest = hashlib.sha256(self.names)
        for column in ("digest", "split", "language", "speaker", "samples", "start", "gain", "id_end", "text_end"):
            digest.update(np.ascontiguousarray(self.rows[column]).data)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class FeatureIndex:
    """Index of a feature store.

    Attributes:
        extractor_hash: Hash of the mel settings `audio`.
        symbols_hash: Hash of the symbol table that the token ids refer to.
        audio: Mel settings.
        features: Settings of pitch, trimming, loudness, speaker vectors and storage.
        speakers, languages: Names that the clip table refers to.
        statistics: Statistics for normalization.
        unknown_symbols: Character without a symbol -> number of times it was left out.
        shards: Names of the shards, `shard-<SHA-256>.safetensors`.
        checksums: File name -> SHA-256 of the other files.
        clips: The clips, in the order of the manifest.
    """

    extractor_hash: str
    symbols_hash: str
    audio: AudioConfig
    features: FeaturesConfig
    speakers: list[str]
    languages: list[str]
    statistics: Statistics
    unknown_symbols: dict[str, int]
    shards: list[str]
    checksums: dict[str, str]
    clips: ClipTable

    @cached_property
    def content_hash(self) -> str:
        """Hash of the clips, all values of their features, and the statistics.

        It does not depend on how the store was built: at once, resumed, or from an earlier store, with any number of
        processes and any size of shards.
        """
        metadata = self._metadata()
        metadata["features"] = self.features.extraction()
        return settings_hash({**metadata, "clips": self.clips.content_hash()})

    def _metadata(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "extractor_hash": self.extractor_hash,
            "symbols_hash": self.symbols_hash,
            "audio": self.audio.model_dump(mode="json"),
            "features": self.features.model_dump(mode="json"),
            "speakers": self.speakers,
            "languages": self.languages,
            "statistics": asdict(self.statistics),
            "unknown_symbols": self.unknown_symbols,
        }

    def write(self, folder: Path) -> None:
        """Writes `index.json`. It must be the last file written: a folder that has it is complete."""
        metadata = {
            **self._metadata(),
            "number_of_clips": len(self.clips),
            "number_of_frames": int(self.clips.rows["frames"].sum(dtype=np.int64)),
            "shards": self.shards,
            "checksums": self.checksums,
            "content_hash": self.content_hash,
        }
        with reporting_write_errors(folder):
            write_json(folder / INDEX, {"index_hash": settings_hash(metadata), **metadata})

    @classmethod
    def read(cls, folder: Path) -> FeatureIndex:
        """Reads the index of a feature store.

        Raises:
            FeatureError: it is missing, damaged, of another format, or was changed after it was written.
        """
        metadata = read_metadata(folder)
        try:
            rows = load_array(folder / CLIPS)
            if rows.dtype != ROW:
                raise ValueError(f"{CLIPS} has rows of another type")
            audio = AudioConfig.model_validate(metadata["audio"])
            speakers, languages = metadata["speakers"], metadata["languages"]
            index = cls(
                extractor_hash=metadata["extractor_hash"],
                symbols_hash=metadata["symbols_hash"],
                audio=audio,
                features=FeaturesConfig.model_validate(metadata["features"]),
                speakers=speakers,
                languages=languages,
                statistics=Statistics.from_dict(metadata["statistics"]),
                unknown_symbols=metadata["unknown_symbols"],
                shards=metadata["shards"],
                checksums=metadata["checksums"],
                clips=ClipTable(
                    rows,
                    (folder / NAMES).read_bytes(),
                    speakers=speakers,
                    languages=languages,
                    sample_rate=audio.sample_rate,
                ),
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise FeatureError(f"{folder}: damaged index ({error}); build the features again") from error
        if index.content_hash != metadata.get("content_hash"):
            raise FeatureError(
                f"{folder}: {CLIPS} or {NAMES} changed after it was written, or another version wrote it "
                f"({metadata.get('content_hash')}, now {index.content_hash}); build the features again"
            )
        return index


def load_array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Loads an array that `np.save` wrote.

    Args:
        path: Its file.
        mmap_mode: `r` maps the file into memory.

    Raises:
        ValueError: the file is damaged. (numpy parses the header as Python, and lets every error of that pass.)
        OSError: the file cannot be read.
    """
    try:
        array = np.load(path, mmap_mode=mmap_mode)
    except (EOFError, BadZipFile, SyntaxError, TokenError, MemoryError) as error:
        raise ValueError(f"{path.name} is no array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path.name} is an archive, not an array")
    return array


def read_metadata(folder: Path) -> dict[str, Any]:
    """Reads `index.json` of a store: settings, statistics, content hash, number of clips, names of the shards.

    Raises:
        FeatureError: it is missing, damaged, of another format, or was changed after it was written.
    """
    path = folder / INDEX
    if not path.is_file():
        raise FeatureError(f"{path}: no features here; run `myxtts features build`")
    metadata = read_record(path, dict[str, Any], FeatureError, "damaged; build the features again")
    if metadata.get("format") != FORMAT:
        found = metadata.get("format")
        raise FeatureError(f"{path}: features of format {found}, this version reads {FORMAT}; build them again")
    written = metadata.pop("index_hash", None)
    if settings_hash(metadata) != written:
        raise FeatureError(f"{path}: changed after it was written ({written}, now {settings_hash(metadata)})")
    return metadata


def save_file(folder: Path, name: str, content: np.ndarray | bytes) -> str:
    """Writes bytes, or an array in npy format, atomically; returns the SHA-256 of the file.

    Raises:
        FeatureError: the disk is full or the folder cannot be written.
    """
    with reporting_write_errors(folder), atomic_write(folder / name) as partial:
        if isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            with partial.open("wb") as file:
                np.save(file, content)
    return sha256_of_file(folder / name)
