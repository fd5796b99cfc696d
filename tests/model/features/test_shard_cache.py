"""Streaming: remote shards are fetched, verified and evicted; training mixes the clips of cached shards."""

import hashlib
import os
import shutil

import numpy as np
import pytest
from small_speech import CONFIG

import model.features.extract
import model.features.shards
from model.errors import FeatureError
from model.features.batching import TrainingBatches, evaluation_batches
from model.features.extract import build_features
from model.features.index import SHARDS
from model.features.sampling import BatchSampler
from model.features.shards import ShardCache
from model.features.store import FeatureStore

CACHE = 700
"""Cache size in kilobytes, about half of the small corpus."""


@pytest.fixture(scope="module")
def built(small_corpus, tmp_path_factory):
    """The small corpus in a shard for every two clips."""
    folder = tmp_path_factory.mktemp("shards") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.features.extract, "CHUNK", 2)
        patch.setattr(model.features.extract, "MEGABYTE", 400)
        build_features(small_corpus, folder, CONFIG)
    return folder


@pytest.fixture
def many_shards(built, tmp_path):
    """A copy of that store which a test may change."""
    return shutil.copytree(built, tmp_path / "store")


@pytest.fixture
def streamed(many_shards, tmp_path, monkeypatch):
    """A store of remote shards whose cache holds about half of them, and the names of the fetched shards."""
    monkeypatch.setattr(model.features.shards, "MEGABYTE", 1000)
    elsewhere = tmp_path / "elsewhere"
    (many_shards / SHARDS).rename(elsewhere)
    fetched = []

    def fetch(name, path):
        fetched.append(name)
        shutil.copyfile(elsewhere / name, path)

    return FeatureStore(many_shards, ShardCache(tmp_path / "cache", CACHE, fetch)), fetched


def held(tmp_path):
    return sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())


def test_a_streamed_store_gives_the_same_clips_in_bounded_space(streamed, store, tmp_path):
    ours, fetched = streamed
    assert fetched == []
    for position in np.random.default_rng(0).permutation(len(store.clips)):
        assert np.array_equal(ours.clip(position).mel, store.clip(position).mel)
        assert held(tmp_path) <= 1000 * CACHE
    assert len(fetched) > len(ours.index.shards)
    assert ours.content_hash == store.content_hash


def test_an_epoch_fetches_every_shard_once(streamed, tmp_path):
    ours, fetched = streamed
    assert 1 < ours.max_resident_shards < len(ours.index.shards) / 2
    batches = TrainingBatches(ours, 4, seed=3)
    training = {ours.clips.rows["shard"][position] for position in ours.split("train")}
    seen = []
    while batches.sampler.epoch == 0 and len(seen) < len(batches.positions):
        seen += next(batches).clip_ids
        assert held(tmp_path) <= 1000 * CACHE
    assert sorted(seen) == sorted(ours.clips[position].id for position in batches.positions)
    assert len(fetched) == len(set(fetched)) == len(training)
    list(evaluation_batches(ours, "validation", 2))


def test_shard_groups_differ_each_epoch_and_keep_every_clip():
    groups = np.repeat(np.arange(10), 20)
    sampler = BatchSampler(
        np.random.default_rng(0).integers(50, 900, 200), 8, seed=1, shards=groups, max_resident_shards=3
    )
    first = set()
    for epoch in range(3):
        order = sampler.order(epoch)
        assert sorted(clip for batch in order for clip in batch) == list(range(200))
        shards = [frozenset(int(groups[clip]) for clip in batch) for batch in order]
        windows = {frozenset().union(*(other for other in shards if other & own)) for own in shards}
        assert all(len(window) <= 3 for window in windows)
        assert sum(len(window) for window in windows) == 10
        first.add(shards[0])
    assert len(first) > 1


def test_a_shard_in_the_cache_is_not_fetched_again(streamed, tmp_path):
    ours, fetched = streamed
    ours.clip(0)
    again = FeatureStore(ours.path, ShardCache(tmp_path / "cache", CACHE, ours.cache.fetch))
    again.clip(0)
    assert len(fetched) == 1


def test_a_damaged_arrival_is_refused_and_leaves_nothing(streamed, tmp_path):
    ours, _ = streamed
    ours.cache.fetch = lambda name, path: path.write_bytes(b"half a shard")
    with pytest.raises(FeatureError, match="arrived damaged"):
        ours.clip(0)
    assert list((tmp_path / "cache").iterdir()) == []


def test_comparing_speakers_is_an_error_if_shards_do_not_fit_the_cache(streamed):
    with pytest.raises(FeatureError, match=r"raise features\.cache_megabytes"):
        TrainingBatches(streamed[0], 4, seed=0, clips_per_speaker=2)


def test_the_least_recently_used_shard_makes_room_for_the_next(tmp_path):
    contents = {}
    for number in range(4):
        data = bytes([number]) * (400 * 1024)
        contents[f"shard-{hashlib.sha256(data).hexdigest()}.safetensors"] = data
    first, second, third, fourth = contents
    cache = ShardCache(tmp_path, 1, lambda name, path: path.write_bytes(contents[name]))
    for age, name in enumerate((first, second)):
        path, gone = cache.get(name)
        os.utime(path, (age, age))  # clocks of file systems may be coarser than this test
        assert gone == []
    cache.get(first)
    assert cache.get(third)[1] == [second]
    os.utime(tmp_path / first, (5, 5))
    assert cache.get(fourth)[1] == [first]
    assert {path.name for path in tmp_path.iterdir()} == {third, fourth}
