"""Fills shards of a stated size with the pieces that workers write, after taking over what earlier shards hold."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from model.errors import FeatureError
from model.features.index import SHARDS
from model.features.shards import PREFIX, SUFFIX, Rows, Shard, checksum_of, file_checksum, write_shard, writing

log = logging.getLogger(__name__)

PIECES = "pieces"
WORTH_KEEPING = 0.5
"""An earlier shard is taken over whole where the clips still needed fill this share of a shard; otherwise they are
copied out of it, so that neither small shards nor dead clips pile up."""
TOO_LARGE = 1.5
"""Shards above this many times the stated size are cut up anew."""


class Packer:
    """The shards of one store while it is built.

    Attributes:
        pieces: Folder for the files of a few clips each that `add` takes.
        claimed: Keys of the clips that need no extraction.
        shards: The shards that are complete.
        held: Key of a clip -> (position in `shards`, row), of all clips after `close`.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder = folder / SHARDS
        self.capacity = capacity
        self.pieces = self.folder / PIECES
        self.pieces.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.rglob(".*.partial"):
            leftover.unlink()
        self.claimed: set[str] = set()
        self.shards: list[Shard] = []
        self.held: dict[str, tuple[int, int]] = {}
        self._waiting: list[Rows] = []
        self._bytes = 0
        self._packed: list[Path] = []  # files whose clips wait: they go once a shard holds the clips

    def reuse(self, sources: Sequence[Path], keys: Sequence[str]) -> None:
        """Take over the clips with these keys from the shards and pieces of stores, finished or not."""
        needed = set(keys)
        for source in sources:
            own = (source / SHARDS).resolve() == self.folder.resolve()
            for path in sorted((source / SHARDS).rglob(f"{PREFIX}*{SUFFIX}")):
                if not self._take(path, needed, own) and own:
                    path.unlink()

    def add(self, piece: Path) -> None:
        """Take the clips of a file in `pieces`; it is removed once they are in a shard."""
        shard = Shard(piece)
        self.claimed.update(shard.keys())
        self._packed.append(piece)
        self._append([shard.all_rows()])

    def close(self) -> None:
        """Write the last shard; after that every claimed clip has its place."""
        if self._waiting:
            self._pack()
        shutil.rmtree(self.pieces, ignore_errors=True)

    def _take(self, path: Path, needed: set[str], own: bool) -> bool:
        """Take what is needed out of a file; whether that was anything."""
        if not needed:
            return False
        try:
            shard = Shard(path)
        except FeatureError as error:
            log.warning("%s; its clips are extracted again", error)
            return False
        live = [row for row, key in enumerate(shard.keys()) if key in needed]
        if not live:
            return False
        if file_checksum(path) != checksum_of(path):
            log.warning("%s: damaged, its clips are extracted again", path)
            return False
        taken = {shard.keys()[row] for row in live}
        needed -= taken
        self.claimed |= taken
        live_bytes = shard.bytes * int(shard.records["frames"][live].sum()) / max(len(shard.mel), 1)
        if live_bytes >= WORTH_KEEPING * self.capacity and shard.bytes <= TOO_LARGE * self.capacity:
            self._hold(path if path.parent == self.folder else self._link(path))
            return True
        if own:
            self._packed.append(path)
        self._append([shard.all_rows()] if len(live) == len(shard.records) else [shard.row(row) for row in live])
        return True

    def _append(self, parts: list[Rows]) -> None:
        self._waiting += parts
        self._bytes += sum(part.bytes for part in parts)
        if self._bytes >= self.capacity:
            self._pack()

    def _pack(self) -> None:
        path = write_shard(self.folder, self._waiting)
        self._hold(path)
        for piece in self._packed:
            if piece != path:
                piece.unlink()
        self._waiting, self._packed, self._bytes = [], [], 0

    def _hold(self, path: Path) -> None:
        shard = Shard(path)
        for row, key in enumerate(shard.keys()):
            self.held.setdefault(key, (len(self.shards), row))
        self.shards.append(shard)

    def _link(self, path: Path) -> Path:
        """The same file in this store: a hard link, or a copy where the file system has none."""
        target = self.folder / path.name
        partial = self.folder / f".{path.name}.partial"
        with writing(partial):
            try:
                os.link(path, partial)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
                    raise
                shutil.copyfile(path, partial)
            os.replace(partial, target)
        return target
