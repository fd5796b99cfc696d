"""Recordings that are streamed from a DVC remote on S3, for corpora that do not fit the disk."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.dvc_objects import DamagedObjectError, object_path, read_listing
from components.object_store import ObjectStore
from model.corpus.manifest import MANIFEST, Clip, read_manifest
from model.errors import FeatureError
from model.features.extractor import Recordings, unusable
from model.files import md5_of_file


class RemoteRecordings(Recordings):
    """The corpus with the DVC hash `data_hash` in a remote, downloaded one clip at a time.

    DVC names files by their MD5, so changed recordings are found without downloading any.
    """

    def __init__(self, remote: str, data_hash: str) -> None:
        self.store = ObjectStore(remote)
        self.data_hash = data_hash
        with tempfile.TemporaryDirectory() as scratch:
            listing = Path(scratch) / "listing"
            self.store.download(object_path(data_hash), listing)
            self.digests = read_listing(listing.read_bytes(), data_hash, remote)

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
            path = Path(scratch) / Path(clip.audio).name
            try:
                self._download(self.digest(clip), path)
            except DamagedObjectError as error:
                raise unusable(clip, str(error)) from error
            yield path

    def _digest_of(self, name: str) -> str:
        if name not in self.digests:
            raise FeatureError(
                f"{self}: has no file {name}; it is not a split corpus, or its push was interrupted; push it again"
            )
        return self.digests[name]

    def _download(self, digest: str, path: Path) -> None:
        self.store.download(object_path(digest), path)
        if (found := md5_of_file(path)) != digest:
            raise DamagedObjectError(f"the object {digest} arrived damaged from {self.store.url} (MD5 {found})")
