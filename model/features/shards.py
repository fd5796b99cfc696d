"""Shards of features on disk: safetensors files with the features of many clips, and a local cache of remote shards."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import FeatureError
from model.files import atomic_write, sha256_of_file

PREFIX = "shard-"
SUFFIX = ".safetensors"
MEGABYTE = 2**20

MOMENTS = ("mel", "energy", "log_f0")
"""Features whose count, sum and sum of squares are stored per clip, as corpus statistics are computed from them."""

RECORD = np.dtype(
    [
        ("key", "S32"),
        ("digest", "S32"),
        ("frames", "<u4"),
        ("tokens", "<u4"),
        ("samples", "<u4"),
        ("start", "<u4"),
        ("gain", "<f4"),
        ("moments", "<f8", (len(MOMENTS), 3)),
    ]
)
"""Record of one clip in a shard.

`key` identifies the inputs of extraction, `digest` the resulting values. `start` is the first sample kept by trimming
and `gain` the factor of loudness normalization.
"""

TENSORS: dict[str, tuple[str, np.dtype]] = {
    "mel": ("F32", np.dtype("<f4")),
    "pitch": ("F32", np.dtype("<f4")),
    "energy": ("F32", np.dtype("<f4")),
    "speaker_vectors": ("F32", np.dtype("<f4")),
    "tokens": ("I16", np.dtype("<i2")),
    "records": ("U8", np.dtype("u1")),
    "unknown": ("U8", np.dtype("u1")),
}
"""Tensor name -> safetensors type and numpy type, widest first so that every array is aligned in the file."""

ALIGNMENT = 64


@dataclass(frozen=True, kw_only=True)
class ExtractedClip:
    """Features of one clip.

    Attributes:
        key: 32 hex digits that identify the inputs of extraction.
        mel: (S, M) float32 log-mel.
        pitch: (S,) float32 Hz, 0 where unvoiced.
        energy: (S,) float32 log energy.
        tokens: (T, 2) int16 symbol and stress.
        speaker_vector: (V,) float32.
        samples: Number of samples after trimming.
        start: First sample kept by trimming, at `audio.sample_rate`.
        gain: Factor of loudness normalization.
        unknown: Character without a symbol -> number of times it was left out.
    """

    key: str
    mel: np.ndarray
    pitch: np.ndarray
    energy: np.ndarray
    tokens: np.ndarray
    speaker_vector: np.ndarray
    samples: int
    start: int
    gain: float
    unknown: Mapping[str, int] = field(default_factory=dict)

    def rows(self) -> ShardRows:
        """Returns the clip as rows of a shard."""
        record = np.zeros(1, RECORD)
        record["key"], record["digest"] = self.key.encode(), self.digest().encode()
        record["frames"], record["tokens"] = len(self.mel), len(self.tokens)
        record["samples"], record["start"], record["gain"] = self.samples, self.start, self.gain
        values = (self.mel, self.energy, np.log(self.pitch[self.pitch > 0]))
        record["moments"] = np.stack([_moments(item) for item in values])
        arrays = {name: getattr(self, name) for name in ("mel", "pitch", "energy", "tokens")}
        unknown = {self.key: dict(self.unknown)} if self.unknown else {}
        return ShardRows({**arrays, "speaker_vectors": self.speaker_vector[None], "records": record}, unknown)

    def digest(self) -> str:
        """Returns 32 hex digits that identify the values of the features."""
        digest = hashlib.sha256()
        for array in (self.mel, self.pitch, self.energy, self.tokens, self.speaker_vector):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class ShardRows:
    """Features of one or more clips in the layout of a shard.

    Attributes:
        arrays: Tensor name -> values of all clips, concatenated.
        unknown: Clip key -> character without a symbol -> count.
    """

    arrays: Mapping[str, np.ndarray]
    unknown: Mapping[str, Mapping[str, int]]

    @property
    def bytes(self) -> int:
        """Size of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class Shard:
    """A memory-mapped shard.

    Clips are read as views of the mapped file, and shards are written array by array: the safetensors library would
    copy both ways and hold a whole shard in memory.

    Attributes:
        path: The file.
        mel, pitch, energy: (F, ...) frames of all clips, concatenated.
        tokens: (T, 2) tokens of all clips, concatenated.
        speaker_vectors: (clips, V).
        records: (clips,) of type `RECORD`.
        unknown: Clip key -> character without a symbol -> count.
        mel_starts, token_starts: (clips,) first frame and first token of each clip.

    Raises:
        FeatureError: the file is missing or not a shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Slicing a plain view is faster than slicing numpy's memmap type.
            content = np.memmap(path, mode="r").view(np.ndarray)
            length = int(content[:8].view("<u8")[0])
            header = json.loads(content[8 : 8 + length].tobytes())
            arrays = {name: _tensor(content[8 + length :], name, header[name]) for name in TENSORS}
            self.records = arrays["records"].reshape(-1).view(RECORD)
            self.unknown: dict[str, dict[str, int]] = json.loads(arrays["unknown"].tobytes())
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise FeatureError(f"{path}: missing or damaged ({error}); build the features again") from error
        self.mel, self.pitch, self.energy = arrays["mel"], arrays["pitch"], arrays["energy"]
        self.tokens, self.speaker_vectors = arrays["tokens"], arrays["speaker_vectors"]
        self.mel_starts = _starts(self.records["frames"])
        self.token_starts = _starts(self.records["tokens"])

    @property
    def bytes(self) -> int:
        """Size of the frame features, which make up most of the file."""
        return self.mel.nbytes + self.pitch.nbytes + self.energy.nbytes

    def keys(self) -> list[str]:
        """Returns the keys of the clips."""
        return [key.decode() for key in self.records["key"].tolist()]

    def all_rows(self) -> ShardRows:
        """Returns all clips."""
        return ShardRows({name: getattr(self, name) for name in TENSORS if name != "unknown"}, self.unknown)

    def row(self, number: int) -> ShardRows:
        """Returns one clip."""
        record = self.records[number]
        frames = slice(self.mel_starts[number], self.mel_starts[number] + record["frames"])
        tokens = slice(self.token_starts[number], self.token_starts[number] + record["tokens"])
        key = record["key"].decode()
        arrays = {
            "mel": self.mel[frames],
            "pitch": self.pitch[frames],
            "energy": self.energy[frames],
            "tokens": self.tokens[tokens],
            "speaker_vectors": self.speaker_vectors[number : number + 1],
            "records": self.records[number : number + 1],
        }
        return ShardRows(arrays, {key: self.unknown[key]} if key in self.unknown else {})


def write_shard(folder: Path, rows: Sequence[ShardRows]) -> Path:
    """Writes clips to `shard-<SHA-256>.safetensors` in `folder`, atomically, and returns the path.

    Raises:
        FeatureError: the disk is full or the folder cannot be written.
    """
    unknown = {key: counts for item in rows for key, counts in item.unknown.items()}
    columns = {name: [_storable(item.arrays[name]) for item in rows] for name in TENSORS if name != "unknown"}
    columns["unknown"] = [np.frombuffer(json.dumps(unknown, ensure_ascii=False, sort_keys=True).encode(), np.uint8)]
    arrays = [array for column in columns.values() for array in column if array.nbytes]
    blocks: list[bytes | memoryview] = [_header(columns)]
    blocks += [memoryview(array.data).cast("B") for array in arrays]
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    path = folder / f"{PREFIX}{digest.hexdigest()}{SUFFIX}"
    with reporting_write_errors(folder), atomic_write(path) as partial, partial.open("wb") as file:
        file.writelines(blocks)
        file.flush()
        os.fsync(file.fileno())
    return path


@contextmanager
def reporting_write_errors(folder: Path) -> Iterator[None]:
    """Raises an `OSError` of the block, such as a full disk, as a `FeatureError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise FeatureError(
            f"{folder}: cannot be written ({error.strerror}); free some space there and run again: "
            "what is extracted so far is kept"
        ) from error


def checksum_in_name(path: Path) -> str:
    """Returns the SHA-256 in the name of a shard."""
    return path.name.removeprefix(PREFIX).removesuffix(SUFFIX)


def _header(columns: Mapping[str, Sequence[np.ndarray]]) -> bytes:
    """Returns the safetensors header of tensors that are concatenations of arrays."""
    entries, position = {}, 0
    for name, arrays in columns.items():
        shape = [sum(len(array) for array in arrays), *arrays[0].shape[1:]]
        end = position + sum(array.nbytes for array in arrays)
        entries[name] = {"dtype": TENSORS[name][0], "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype == RECORD:
        array = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), RECORD.itemsize)
    return np.ascontiguousarray(array)


def _tensor(content: np.ndarray, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    kind, dtype = TENSORS[name]
    begin, end = entry["data_offsets"]
    if entry["dtype"] != kind or end > len(content):
        raise ValueError(f"{name} is {entry['dtype']} up to byte {end} of {len(content)}")
    return content[begin:end].view(dtype).reshape(entry["shape"])


def _starts(lengths: np.ndarray) -> np.ndarray:
    wide = lengths.astype(np.int64)
    return np.cumsum(wide) - wide


def _moments(values: np.ndarray) -> np.ndarray:
    """Returns count, sum and sum of squares, (3,) float64."""
    wide = values.astype(np.float64).ravel()
    return np.array([wide.size, wide.sum(), wide @ wide])


class ShardCache:
    """Local cache of remote shards with a bounded size; evicts the least recently used shard.

    Args:
        folder: Folder of the cached shards. It may hold shards from earlier trainings.
        megabytes: Maximum size. A single shard above it is kept alone.
        fetch: Downloads the shard of a name to a path. Passed in, as this package does not access object stores.
    """

    def __init__(self, folder: Path, megabytes: int, fetch: Callable[[str, Path], None]) -> None:
        self.folder = folder
        self.capacity = megabytes * MEGABYTE
        self.fetch = fetch
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.partial"):
            leftover.unlink()

    def get(self, name: str) -> tuple[Path, list[str]]:
        """Returns the path of a shard, fetched if necessary, and the names of the shards evicted for it.

        Raises:
            FeatureError: the fetched file is damaged, or the disk is full.
        """
        path = self.folder / name
        with self._lock:
            if path.is_file():
                os.utime(path)  # most recently used
                return path, []
            with reporting_write_errors(self.folder), atomic_write(path) as partial:
                self.fetch(name, partial)
                if sha256_of_file(partial) != checksum_in_name(path):
                    raise FeatureError(
                        f"{name}: arrived damaged; run again, and if it persists push the features again"
                    )
                evicted = self._make_room(partial.stat().st_size)
            return path, evicted

    def adopt(self, shard: Path) -> None:
        """Moves a shard into the cache, or deletes it if the cache is full or has it already."""
        with self._lock:
            if not shard.is_file():
                return
            size = sum(path.stat().st_size for path in self.folder.glob("shard-*"))
            known = (self.folder / shard.name).is_file()
            if not known and size + shard.stat().st_size <= self.capacity:
                os.replace(shard, self.folder / shard.name)
            else:
                shard.unlink()

    def _make_room(self, needed: int) -> list[str]:
        """Evicts shards until `needed` bytes fit; returns their names."""
        files = sorted(self.folder.glob("shard-*"), key=lambda path: path.stat().st_mtime_ns)
        size = sum(path.stat().st_size for path in files)
        evicted = []
        while files and size + needed > self.capacity:
            oldest = files.pop(0)
            size -= oldest.stat().st_size
            oldest.unlink()
            evicted.append(oldest.name)
        return evicted
