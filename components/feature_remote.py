"""Feature shards on S3, named by their checksums and read through a local cache of bounded size."""

from dataclasses import dataclass
from pathlib import Path

from components.object_store import ObjectStore
from components.state import State, read_json
from model.features.index import SHARDS, FeatureIndex
from model.features.shards import ShardCache
from model.features.store import FeatureStore
from model.files import write_json

CACHE = "shard-cache"
"""Folder of the state: local cache of the remote shards of all stores."""
REMOTE_FILE = "remote.json"
"""File in a store's folder: the address of its remote shards, and the size of their local cache."""


@dataclass(frozen=True)
class FetchShard:
    """Downloads shards from S3."""

    remote: ObjectStore

    def __call__(self, name: str, path: Path) -> None:
        self.remote.download(f"{SHARDS}/{name}", path)


def push(folder: Path, url: str, cache_megabytes: int, state: State) -> int:
    """Moves the shards of a store to S3; its index stays local.

    Shards are named by their checksums, so those that the remote holds already, from another store or an interrupted
    push, are not uploaded again. The local cache keeps as many as it may hold.

    Returns:
        Number of uploaded shards.
    """
    remote = ObjectStore(url)
    names = FeatureIndex.read(folder).shards
    stored = remote.names(f"{SHARDS}/")
    missing = [name for name in names if f"{SHARDS}/{name}" not in stored and (folder / SHARDS / name).is_file()]
    for name in missing:
        remote.upload(folder / SHARDS / name, f"{SHARDS}/{name}")
    write_json(folder / REMOTE_FILE, {"url": url, "cache_megabytes": cache_megabytes})
    cache = _cache(url, cache_megabytes, state)
    for name in names:
        cache.adopt(folder / SHARDS / name)
    return len(missing)


def open_store(folder: Path, state: State) -> FeatureStore:
    """Opens the store in a folder, with local or remote shards."""
    if not (folder / REMOTE_FILE).is_file():
        return FeatureStore(folder)
    remote = read_json(folder / REMOTE_FILE, _Remote)
    return FeatureStore(folder, _cache(remote.url, remote.cache_megabytes, state))


@dataclass(frozen=True, kw_only=True)
class _Remote:
    """Content of `remote.json`."""

    url: str
    cache_megabytes: int


def _cache(url: str, megabytes: int, state: State) -> ShardCache:
    return ShardCache(state.folder(CACHE, SHARDS), megabytes, FetchShard(ObjectStore(url)))
