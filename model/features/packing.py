"""Packing of extracted clips into the shards of a feature store, with reuse of the clips in earlier shards.

Workers write *pieces*: small shards of a few clips. The packer collects their clips until they fill a shard of the
configured size. All other clips come from earlier stores, or from an interrupted build of the same store.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from model.errors import FeatureError
from model.features.index import SHARDS
from model.features.shards import (
    PREFIX,
    SUFFIX,
    Shard,
    ShardRows,
    checksum_in_name,
    reporting_write_errors,
    write_shard,
)
from model.files import atomic_write, sha256_of_file

log = logging.getLogger(__name__)

PIECES = "pieces"
MIN_REUSED_SHARE = 0.5
"""Smallest fraction of the capacity that the needed clips of an earlier shard fill if the file is kept; otherwise the
clips are copied. So small shards and unneeded clips do not accumulate."""
MAX_REUSED_SIZE = 1.5
"""Ratio of the size of an earlier shard to the capacity above which it is repacked."""


class Packer:
    """Packs the clips of a feature store into shards.

    Args:
        folder: Folder of the store.
        capacity: Size of a full shard in bytes.

    Attributes:
        pieces: Folder for the pieces that `add` takes.
        available: Keys of the clips that are reused or added.
        shards: Completed shards.
        locations: Clip key -> (position in `shards`, row); has all available clips after `close`.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder = folder / SHARDS
        self.capacity = capacity
        self.pieces = self.folder / PIECES
        self.pieces.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.rglob(".*.partial"):
            leftover.unlink()
        self.available: set[str] = set()
        self.shards: list[Shard] = []
        self.locations: dict[str, tuple[int, int]] = {}
        self._pending: list[ShardRows] = []  # clips of the next shard
        self._pending_bytes = 0
        self._pending_files: list[Path] = []  # files in this store to delete once their clips are in a shard

    def reuse(self, sources: Sequence[Path], keys: Sequence[str]) -> None:
        """Takes the clips with these keys from the shards and pieces of stores, complete or not.

        Files of this store that hold none of the clips are deleted.
        """
        needed = set(keys)
        for source in sources:
            own = (source / SHARDS).resolve() == self.folder.resolve()
            for path in sorted((source / SHARDS).rglob(f"{PREFIX}*{SUFFIX}")):
                reused = self._reuse_file(path, needed, own)
                needed -= reused
                self.available |= reused
                if own and not reused:
                    path.unlink()

    def add(self, piece: Path) -> None:
        """Takes the clips of a piece, which is deleted once they are in a shard."""
        shard = Shard(piece)
        self.available.update(shard.keys())
        self._pending_files.append(piece)
        self._append([shard.all_rows()])

    def close(self) -> None:
        """Writes the last shard and deletes the folder of pieces."""
        if self._pending:
            self._write_pending()
        shutil.rmtree(self.pieces, ignore_errors=True)

    def _reuse_file(self, path: Path, needed: set[str], own: bool) -> set[str]:
        """Takes the needed clips of a shard or piece, as a file or by copying them; returns their keys."""
        if not needed:
            return set()
        try:
            shard = Shard(path)
        except FeatureError as error:
            log.warning("%s; its clips are extracted again", error)
            return set()
        keys = shard.keys()
        rows = [row for row, key in enumerate(keys) if key in needed]
        if not rows:
            return set()
        if sha256_of_file(path) != checksum_in_name(path):
            log.warning("%s: damaged, its clips are extracted again", path)
            return set()
        if self._worth_keeping(shard, rows):
            self._add_shard(path if path.parent == self.folder else self._link(path))
        else:
            if own:
                self._pending_files.append(path)
            everything = len(rows) == len(keys)
            self._append([shard.all_rows()] if everything else [shard.row(row) for row in rows])
        return {keys[row] for row in rows}

    def _worth_keeping(self, shard: Shard, rows: list[int]) -> bool:
        share = int(shard.records["frames"][rows].sum()) / max(len(shard.mel), 1)
        large_enough = shard.bytes * share >= MIN_REUSED_SHARE * self.capacity
        return large_enough and shard.bytes <= MAX_REUSED_SIZE * self.capacity

    def _append(self, rows: list[ShardRows]) -> None:
        self._pending += rows
        self._pending_bytes += sum(item.bytes for item in rows)
        if self._pending_bytes >= self.capacity:
            self._write_pending()

    def _write_pending(self) -> None:
        path = write_shard(self.folder, self._pending)
        self._add_shard(path)
        for file in self._pending_files:
            if file != path:  # the same clips in the same order give the same name
                file.unlink()
        self._pending, self._pending_files, self._pending_bytes = [], [], 0

    def _add_shard(self, path: Path) -> None:
        shard = Shard(path)
        for row, key in enumerate(shard.keys()):
            self.locations.setdefault(key, (len(self.shards), row))
        self.shards.append(shard)

    def _link(self, path: Path) -> Path:
        """Hard-links a shard into this store, or copies it if the file system cannot; returns the new path."""
        target = self.folder / path.name
        with reporting_write_errors(self.folder), atomic_write(target) as partial:
            try:
                os.link(path, partial)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
                    raise
                shutil.copyfile(path, partial)
        return target
