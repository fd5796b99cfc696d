"""Recordings that are streamed from a DVC remote on S3, for corpora that do not fit the disk."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.object_store import ObjectStore
from model.corpus.manifest import MANIFEST, Clip, read_manifest
from model.errors import FeatureError
from model.features.extractor import Recordings, unusable


class RemoteRecordings(Recordings):
    """The corpus with the DVC hash `data_hash` in a remote, downloaded one clip at a time.

    DVC names files by their MD5, so changed recordings are found without downloading any.
    """

    def __init__(self, remote: str, data_hash: str) -> None:
        self.store = ObjectStore(remote)
        self.data_hash = data_hash
        with tempfile.TemporaryDirectory() as scratch:
            listing = self._download(data_hash, Path(scratch) / "listing")
            self.digests = {item["relpath"]: item["md5"] for item in json.loads(listing.read_text("utf-8"))}

    def __str__(self) -> str:
        return f"{self.store.url} ({self.data_hash})"

    def clips(self) -> list[Clip]:
        with tempfile.TemporaryDirectory() as scratch:
            self._download(self._digest_of(MANIFEST), Path(scratch) / MANIFEST)
            return read_manifest(Path(scratch))

    def digest(self, clip: Clip) -> str:
        return self._digest_of(clip.audio)

    @contextmanager
    def file(self, clip: Clip) -> Iterator[Path]:
        """Yields the path of a clip's recording, a temporary file that is removed after the block."""
        with tempfile.TemporaryDirectory() as scratch:
            path = self._download(self.digest(clip), Path(scratch) / Path(clip.audio).name)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if found != self.digest(clip):
                raise unusable(clip, f"arrived damaged from {self.store.url} (MD5 {found})")
            yield path

    def _digest_of(self, name: str) -> str:
        if name not in self.digests:
            raise FeatureError(
                f"{self}: has no file {name}; it is not a split corpus, or its push was interrupted; push it again"
            )
        return self.digests[name]

    def _download(self, digest: str, path: Path) -> Path:
        self.store.download(f"files/md5/{digest[:2]}/{digest[2:]}", path)
        return path
