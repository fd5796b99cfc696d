"""Shards of features on disk, and the local cache of remote ones."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import FeatureError

SUFFIX = ".safetensors"


PREFIX = "shard-"


MOMENTS = ("mel", "energy", "log_f0")
"""Of what count, sum and sum of squares are kept per clip: all that statistics need."""


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
"""What a shard knows of a clip: the key of what it was made from, the digest of its values, its extents, and how
the recording became the samples they were made from (first sample, gain)."""


TENSORS = {
    "mel": ("F32", np.dtype("<f4")),
    "pitch": ("F32", np.dtype("<f4")),
    "energy": ("F32", np.dtype("<f4")),
    "speaker_vectors": ("F32", np.dtype("<f4")),
    "tokens": ("I16", np.dtype("<i2")),
    "records": ("U8", np.dtype("u1")),
    "unknown": ("U8", np.dtype("u1")),
}
"""Name -> type in the file, widest first, so that every array is aligned."""


ALIGNMENT = 64


@dataclass(frozen=True)
class Extracted:
    """The features of one clip.

    Attributes:
        key: 32 hex digits that identify what the features were made from.
        mel: (S, M) float32 log-mel.
        pitch: (S,) float32 Hz, 0 where unvoiced.
        energy: (S,) float32 log energy.
        tokens: (T, 2) int16.
        speaker_vector: (V,) float32.
        samples: Samples that the features were made from.
        start: The first of them in the recording (at `audio.sample_rate`).
        gain: What the recording was multiplied by.
        unknown: Characters that were left out -> how often.
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

    def rows(self) -> Rows:
        """This clip as what a shard is written from."""
        record = np.zeros(1, RECORD)
        record["key"], record["digest"] = self.key.encode(), self.digest().encode()
        record["frames"], record["tokens"] = len(self.mel), len(self.tokens)
        record["samples"], record["start"], record["gain"] = self.samples, self.start, self.gain
        values = (self.mel, self.energy, np.log(self.pitch[self.pitch > 0]))
        record["moments"] = np.stack([_moments(item) for item in values])
        arrays = {name: getattr(self, name) for name in ("mel", "pitch", "energy", "tokens")}
        unknown = {self.key: dict(self.unknown)} if self.unknown else {}
        return Rows({**arrays, "speaker_vectors": self.speaker_vector[None], "records": record}, unknown)

    def digest(self) -> str:
        return values_digest(self.mel, self.pitch, self.energy, self.tokens, self.speaker_vector)


@dataclass(frozen=True)
class Rows:
    """Arrays of clips one after the other, by tensor name; and the unknown characters of clips by key."""

    arrays: Mapping[str, np.ndarray]
    unknown: Mapping[str, Mapping[str, int]]

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


class Shard:
    """A shard file, memory-mapped.

    Attributes:
        path: The file.
        mel, pitch, energy: (F, ...) of all its clips, one after the other.
        tokens: (T, 2).
        speaker_vectors: (clips, V).
        records: (clips,) of type `RECORD`.
        unknown: Clip key -> characters that were left out.
        mel_starts, token_starts: (clips,) first frame and first token of each clip.

    Raises:
        FeatureError: the file is missing, or is no shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A plain view costs less at each slice than numpy's memmap type.
            content = np.memmap(path, mode="r").view(np.ndarray)
            length = int(content[:8].view("<u8")[0])
            header = json.loads(content[8 : 8 + length].tobytes())
            arrays = {name: _tensor(content[8 + length :], name, header[name]) for name in TENSORS}
            self.records = arrays["records"].reshape(-1).view(RECORD)
            self.unknown: dict[str, dict[str, int]] = json.loads(arrays["unknown"].tobytes())
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise FeatureError(f"{path}: missing or damaged ({error}); build the features again") from error
        self.mel, self.pitch, self.energy = arrays["mel"], arrays["pitch"], arrays["energy"]
        self.tokens, self.speaker_vectors = arrays["tokens"], arrays["speaker_vectors"]
        self.mel_starts = _starts(self.records["frames"])
        self.token_starts = _starts(self.records["tokens"])

    @property
    def bytes(self) -> int:
        return self.mel.nbytes + self.pitch.nbytes + self.energy.nbytes

    def keys(self) -> list[str]:
        return [key.decode() for key in self.records["key"].tolist()]

    def all_rows(self) -> Rows:
        names = [name for name in TENSORS if name != "unknown"]
        return Rows({name: getattr(self, name) for name in names}, self.unknown)

    def row(self, number: int) -> Rows:
        """One clip."""
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
        return Rows(arrays, {key: self.unknown[key]} if key in self.unknown else {})


def write_shard(folder: Path, parts: Sequence[Rows], name: str = "") -> Path:
    """Write clips as one file, array after array, so that no more than one clip's worth is held in memory.

    Args:
        folder: Where to.
        parts: At least one; their rows follow each other.
        name: File name; by default `shard-<sha256>`, which makes the name its checksum.

    Raises:
        FeatureError: the disk is full. No half of a file is left.
    """
    unknown = {key: counts for part in parts for key, counts in part.unknown.items()}
    notes = np.frombuffer(json.dumps(unknown, ensure_ascii=False, sort_keys=True).encode(), np.uint8)
    columns = {tensor: [_storable(part.arrays[tensor]) for part in parts] for tensor in TENSORS if tensor != "unknown"}
    columns["unknown"] = [notes]
    header, position = {}, 0
    for tensor, arrays in columns.items():
        shape = [sum(len(array) for array in arrays), *arrays[0].shape[1:]]
        end = position + sum(array.nbytes for array in arrays)
        header[tensor] = {"dtype": TENSORS[tensor][0], "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    partial = folder / f".{name or 'shard'}.{os.getpid()}.partial"
    digest = hashlib.sha256()
    with writing(partial), partial.open("wb") as file:
        for block in _blocks(len(text).to_bytes(8, "little") + text, columns.values()):
            file.write(block)
            digest.update(block)
        file.flush()
        os.fsync(file.fileno())
        path = folder / (name or f"{PREFIX}{digest.hexdigest()}{SUFFIX}")
        os.replace(partial, path)
    return path


@contextmanager
def writing(partial: Path) -> Iterator[None]:
    """Around writing a file: a full disk becomes a clear error, and the half-written file goes."""
    try:
        yield
    except OSError as error:
        raise FeatureError(
            f"{partial.parent}: cannot be written ({error.strerror}); free some space there and run again: "
            "what is extracted so far is kept"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def checksum_of(path: Path) -> str:
    """The checksum (SHA-256) that the name of a shard carries."""
    return path.name.removeprefix(PREFIX).removesuffix(SUFFIX)


def file_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def values_digest(*arrays: np.ndarray) -> str:
    """32 hex digits that identify the values of arrays of one clip."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def _blocks(header: bytes, columns: Iterable[list[np.ndarray]]) -> Iterable[Any]:
    yield header
    for arrays in columns:
        for array in arrays:
            if array.nbytes:
                yield array.reshape(-1).view(np.uint8).data


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
    wide = values.astype(np.float64).ravel()
    return np.array([wide.size, wide.sum(), wide @ wide])


MEGABYTE = 2**20


class ShardCache:
    """A local folder that holds some of the shards of a store; the least recently used one goes first.

    Args:
        folder: Where fetched shards are kept; those that an earlier training left there are used again.
        megabytes: What the folder may hold. A single shard above it is kept alone.
        fetch: Called with the name of a shard and the path to write it to. Comes from outside: this package knows no
            object store.
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
        """Path of a shard, fetched where it is not here, and the names of the shards that made room for it.

        Raises:
            FeatureError: what was fetched is not this shard, or the disk is full.
        """
        path = self.folder / name
        with self._lock:
            if path.is_file():
                os.utime(path)  # most recently used
                return path, []
            partial = self.folder / f".{name}.partial"
            with writing(partial):
                self.fetch(name, partial)
                if file_checksum(partial) != checksum_of(path):
                    raise FeatureError(
                        f"{name}: arrived damaged; run again, and push the features again if it stays so"
                    )
                gone = self._make_room(partial.stat().st_size)
                os.replace(partial, path)
            return path, gone

    def adopt(self, shard: Path) -> None:
        """Take over a shard's file, or remove it where the folder is full."""
        with self._lock:
            if not shard.is_file():
                return
            held = sum(path.stat().st_size for path in self.folder.glob("shard-*"))
            known = (self.folder / shard.name).is_file()
            if not known and held + shard.stat().st_size <= self.capacity:
                os.replace(shard, self.folder / shard.name)
            else:
                shard.unlink()

    def _make_room(self, needed: int) -> list[str]:
        files = sorted(self.folder.glob("shard-*"), key=lambda path: path.stat().st_mtime_ns)
        held = sum(path.stat().st_size for path in files)
        gone = []
        while files and held + needed > self.capacity:
            oldest = files.pop(0)
            held -= oldest.stat().st_size
            oldest.unlink()
            gone.append(oldest.name)
        return gone
