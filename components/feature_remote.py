"""Feature shards on S3: pushed by their checksums, and read through a local folder of bounded size."""

from dataclasses import dataclass
from pathlib import Path

from components.object_store import ObjectStore
from components.state import State, read_json, write_json
from model.features.index import SHARDS, FeatureIndex
from model.features.shards import ShardCache
from model.features.store import FeatureStore

CACHE = "shard-cache"
"""In the state: shards of all stores whose shards are elsewhere."""
ELSEWHERE = "remote.json"
"""In a store's folder: where its shards are, and how much of them may be kept here."""


@dataclass(frozen=True)
class FetchShard:
    """Fetches shards from an address."""

    remote: ObjectStore

    def __call__(self, name: str, path: Path) -> None:
        self.remote.download(f"{SHARDS}/{name}", path)


def push(folder: Path, url: str, cache_megabytes: int, state: State) -> int:
    """Move the shards of a store to S3; its index stays here.

    Shards are named by their checksums: those that the remote has from any earlier store or an interrupted push are
    not sent again. As many as the cache may hold stay here.

    Returns:
        Number of shards that were sent.
    """
    remote = ObjectStore(url)
    names = FeatureIndex.read(folder).shards
    there = remote.names(f"{SHARDS}/")
    sent = [name for name in names if f"{SHARDS}/{name}" not in there and (folder / SHARDS / name).is_file()]
    for name in sent:
        remote.upload(folder / SHARDS / name, f"{SHARDS}/{name}")
    write_json(folder / ELSEWHERE, {"url": url, "cache_megabytes": cache_megabytes})
    cache = _cache(url, cache_megabytes, state)
    for name in names:
        cache.adopt(folder / SHARDS / name)
    return len(sent)


def open_store(folder: Path, state: State) -> FeatureStore:
    """The store in a folder, wherever its shards are."""
    if not (folder / ELSEWHERE).is_file():
        return FeatureStore(folder)
    elsewhere = read_json(folder / ELSEWHERE)
    return FeatureStore(folder, _cache(elsewhere["url"], elsewhere["cache_megabytes"], state))


def _cache(url: str, megabytes: int, state: State) -> ShardCache:
    return ShardCache(state.folder(CACHE, SHARDS), megabytes, FetchShard(ObjectStore(url)))
