"""Features on S3: pushed once by their checksums, interrupted and resumed, read through a bounded cache."""

import numpy as np
import pytest
from clips import make_clip
from step_records import step_inputs

import model.features.extract
from components import feature_remote
from components.feature_remote import open_store
from components.object_store import ObjectStore, ObjectStoreError
from model.audio.io import write_audio
from model.config.data import PreprocessSettings
from model.config.schema import Config
from model.corpus.manifest import write_manifest
from model.features import shards as shard_cache
from model.features.extract import build_features
from model.features.store import FeatureStore

REMOTE = "s3://speech/features"


@pytest.fixture
def corpus(tmp_path):
    """Twelve clips of noise-like speech."""
    generator, clips = np.random.default_rng(0), []
    for number in range(12):
        sound = np.sin(np.cumsum(0.05 + 0.01 * generator.standard_normal(22050))) * 0.3
        write_audio(tmp_path / "corpus" / f"{number}.flac", sound, 22050)
        split = "train" if number < 10 else "validation"
        clips.append(make_clip(f"c{number}", "Good morning.", audio=f"{number}.flac", seconds=1.0, split=split))
    write_manifest(tmp_path / "corpus", clips)
    return tmp_path / "corpus"


@pytest.fixture
def build(corpus, tmp_path, monkeypatch):
    """Builds the features of the corpus in shards of two clips."""
    monkeypatch.setattr(model.features.extract, "CHUNK", 2)
    monkeypatch.setattr(model.features.extract, "MEGABYTE", 200)

    def build(name="store"):
        build_features(corpus, tmp_path / name, Config())
        return tmp_path / name

    return build


def test_a_pushed_store_is_read_from_s3_through_a_small_cache(build, state, s3, monkeypatch):
    monkeypatch.setattr(shard_cache, "MEGABYTE", 100_000)  # about one shard
    folder = build()
    whole = {clip.id: FeatureStore(folder).clip(i).mel.copy() for i, clip in enumerate(FeatureStore(folder).clips)}
    assert feature_remote.push(folder, REMOTE, 1, state) == len(s3.keys()) > 3
    store = open_store(folder, state)
    for position, clip in enumerate(store.clips):
        assert np.array_equal(store.clip(position).mel, whole[clip.id])
    assert any("/shards/shard-" in path for path in s3.gets)
    kept = sum(path.stat().st_size for path in (state.root / feature_remote.CACHE / "shards").iterdir())
    assert kept <= 100_000


def test_an_interrupted_push_is_resumed(build, state, s3):
    folder = build()
    content = FeatureStore(folder).content_hash
    s3.writes_left = 2
    with pytest.raises(ObjectStoreError, match=r"s3://speech/features/shards/.*run again"):
        feature_remote.push(folder, REMOTE, 1000, state)
    assert len(s3.keys()) == 2
    FeatureStore(folder).verify()  # nothing has moved yet
    s3.writes_left = None
    assert feature_remote.push(folder, REMOTE, 1000, state) == len(s3.keys()) - 2
    assert open_store(folder, state).content_hash == content
    assert feature_remote.push(build("twin"), REMOTE, 1000, state) == 0


def test_a_wrong_address_and_a_missing_bucket_are_named(build, state, s3):
    with pytest.raises(ObjectStoreError, match="not an address of the form"):
        ObjectStore("http://elsewhere")
    with pytest.raises(ObjectStoreError, match=r"s3://nowhere/x.*credentials"):
        feature_remote.push(build(), "s3://nowhere/x", 1000, state)


def test_the_step_moves_shards_where_the_settings_say(corpus, state, s3, tmp_path):
    from components.preprocess.run import run

    settings = PreprocessSettings.of(Config.model_validate({"features": {"remote": REMOTE}})).to_json()
    inputs = step_inputs(tmp_path, ["data"], {"data.corpus": corpus})
    answer = run(**inputs, settings=settings)
    assert len(s3.keys()) == 1
    store = open_store(answer.features, state)
    assert store.cache is not None
    assert store.clip(3).mel.shape[1] == 80
    assert run(**inputs, settings=settings) == answer
