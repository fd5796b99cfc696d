"""The index of a feature store: which clip lies where, how the features were made, and what normalises them.

`index.json` holds the settings and statistics; the clips are rows of one table of numbers (`clips.npy`) and of one
text (`names.txt`), so that an index of a hundred thousand clips opens in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model.config import settings_hash
from model.config.data import AudioConfig, FeaturesConfig
from model.errors import FeatureError
from model.features.shards import file_checksum, writing
from model.features.statistics import Statistics

__all__ = ["FeatureError", "FeatureIndex", "IndexedClip", "Statistics"]

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
"""One clip in `clips.npy`; its id and text end at those bytes of `names.txt`, where the next clip's begin."""


@dataclass(frozen=True)
class IndexedClip:
    """Where one clip lies in the shards.

    Attributes:
        id: As in the manifest.
        split: One of `SPLITS`.
        text: What is said.
        language: espeak-ng voice name.
        speaker: Speaker name.
        shard: Position in the index's list of shards.
        mel_start: First frame in the shard's `mel`, `pitch` and `energy`.
        frames: S.
        token_start: First token in the shard's `tokens`.
        tokens: T.
        seconds: Duration after trimming.
        trimmed: Seconds cut from the start: ground-truth times of the recording are this much later than ours.
        gain: What the recording was multiplied by (1 without `features.target_loudness`).
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


class ClipTable(Sequence[IndexedClip]):
    """The clips of an index: rows by column (`table.rows["frames"]`), or one at a time as `IndexedClip`."""

    def __init__(self, rows: np.ndarray, names: bytes, speakers: list[str], languages: list[str], rate: int) -> None:
        self.rows = rows
        self.names = names
        self._speakers, self._languages, self._rate = speakers, languages, rate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> IndexedClip:
        row = self.rows[position]
        position = range(len(self.rows))[position]
        begin = int(self.rows[position - 1]["text_end"]) if position else 0
        middle, end = int(row["id_end"]), int(row["text_end"])
        return IndexedClip(
            id=self.names[begin:middle].decode(),
            split=SPLITS[row["split"]],
            text=self.names[middle:end].decode(),
            language=self._languages[row["language"]],
            speaker=self._speakers[row["speaker"]],
            shard=int(row["shard"]),
            mel_start=int(row["mel_start"]),
            frames=int(row["frames"]),
            token_start=int(row["token_start"]),
            tokens=int(row["tokens"]),
            seconds=round(int(row["samples"]) / self._rate, 6),
            trimmed=round(int(row["start"]) / self._rate, 6),
            gain=float(row["gain"]),
        )

    def __iter__(self) -> Iterator[IndexedClip]:
        return (self[position] for position in range(len(self)))

    @property
    def seconds(self) -> float:
        """Of all clips together."""
        return float(self.rows["samples"].sum(dtype=np.int64)) / self._rate

    def content(self) -> str:
        """Hash of what the clips are, whatever the shards that hold them."""
        digest = hashlib.sha256(self.names)
        for column in ("digest", "split", "language", "speaker", "samples", "start", "gain", "id_end", "text_end"):
            digest.update(np.ascontiguousarray(self.rows[column]).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class FeatureIndex:
    """All that a store knows of itself.

    Attributes:
        extractor_hash: Of the mel settings `audio`.
        symbols_hash: Of the symbol table that the token ids refer to.
        features: The settings of pitch, trimming, loudness, speaker vectors and storage.
        speakers, languages: Names; a clip's speaker and language numbers are positions in them.
        unknown_symbols: Characters that the symbol table lacks -> how often they were left out.
        shards: Names of the shard files; each is `shard-<its SHA-256>`.
        checksums: Name -> SHA-256 of the other files.
        clips: The clips in the manifest's order.
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
        """Identifies the clips, every value of their features and what normalises them.

        The same whether the store was built at once, continued, or grew from an earlier one, by any number of
        processes and with shards of any size.
        """
        about = self._about()
        about["features"] = self.features.extraction()
        return settings_hash({**about, "clips": self.clips.content()})

    def _about(self) -> dict[str, Any]:
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
        """Write `index.json`, last of all files: a folder that has it is complete."""
        about = {
            **self._about(),
            "number_of_clips": len(self.clips),
            "number_of_frames": int(self.clips.rows["frames"].sum(dtype=np.int64)),
            "shards": self.shards,
            "checksums": self.checksums,
            "content_hash": self.content_hash,
        }
        text = json.dumps({"index_hash": settings_hash(about), **about}, ensure_ascii=False, indent=1)
        partial = folder / f".{INDEX}.partial"
        with writing(partial):
            partial.write_text(text + "\n", encoding="utf-8")
            os.replace(partial, folder / INDEX)

    @classmethod
    def read(cls, folder: Path) -> FeatureIndex:
        """The index of a feature store.

        Raises:
            FeatureError: there is none, it is of another format, or it was changed after it was written.
        """
        data = read_about(folder)
        try:
            clips = np.load(folder / CLIPS)
            names = (folder / NAMES).read_bytes()
            if clips.dtype != ROW:
                raise ValueError(f"{CLIPS} has rows of another type")
            audio = AudioConfig.model_validate(data["audio"])
            index = cls(
                audio=audio,
                features=FeaturesConfig.model_validate(data["features"]),
                statistics=Statistics.from_plain(data["statistics"]),
                clips=ClipTable(clips, names, data["speakers"], data["languages"], audio.sample_rate),
                **{key: data[key] for key in ("extractor_hash", "symbols_hash", "speakers", "languages")},
                **{key: data[key] for key in ("unknown_symbols", "shards", "checksums")},
            )
        except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
            raise FeatureError(f"{folder}: damaged index ({error}); build the features again") from error
        if index.content_hash != data["content_hash"]:
            raise FeatureError(
                f"{folder}: {CLIPS} or {NAMES} changed after it was written, or another version wrote it "
                f"({data['content_hash']}, now {index.content_hash}); build the features again"
            )
        return index


def read_about(folder: Path) -> dict[str, Any]:
    """What `index.json` says of a store: settings, statistics, content hash, number of clips.

    Raises:
        FeatureError: there is none, it is of another format, or it was changed after it was written.
    """
    path = folder / INDEX
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise FeatureError(f"{path}: no features here; run `myxtts features build`") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FeatureError(f"{path}: damaged ({error}); build the features again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise FeatureError(f"{path}: features of format {found}, this version reads {FORMAT}; build them again")
    written = data.pop("index_hash", None)
    if settings_hash(data) != written:
        raise FeatureError(f"{path}: changed after it was written ({written}, now {settings_hash(data)})")
    return data


def save_file(folder: Path, name: str, content: np.ndarray | bytes) -> str:
    """Write a file in one move; returns its checksum."""
    partial = folder / f".{name}.partial"
    with writing(partial):
        if isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            with partial.open("wb") as file:
                np.save(file, content)
        os.replace(partial, folder / name)
    return file_checksum(folder / name)
