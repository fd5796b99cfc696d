"""Shards that lie elsewhere, fetched when they are needed into a folder of bounded size."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from model.features.errors import FeatureError
from model.features.shards import checksum_of, file_checksum, writing

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
