"""The content hash of a store: it follows what the clips are, not the files that hold them."""

from dataclasses import replace

import numpy as np
import pytest

from model.config.data import AudioConfig
from model.features.index import ROW, ClipTable, FeatureIndex

PLACES = {"shard", "mel_start", "token_start"}
LENGTHS = {"frames", "tokens"}
"""Of arrays that the digest of a clip's values covers."""


@pytest.fixture
def index(store) -> FeatureIndex:
    return store.index


def with_clips(index: FeatureIndex, rows: np.ndarray | None = None, names: bytes | None = None) -> FeatureIndex:
    clips = index.clips
    table = ClipTable(
        clips.rows if rows is None else rows,
        clips.names if names is None else names,
        index.speakers,
        index.languages,
        index.audio.sample_rate,
    )
    return replace(index, clips=table)


def test_the_same_clips_have_the_same_hash(index):
    assert with_clips(index).content_hash == index.content_hash


@pytest.mark.parametrize("column", sorted(set(ROW.names) - LENGTHS))
def test_every_column_counts_but_where_a_clip_lies(index, column):
    rows = index.clips.rows.copy()
    rows[column][3] = b"0" * 32 if column == "digest" else rows[column][3] + 1
    assert (with_clips(index, rows).content_hash == index.content_hash) is (column in PLACES)


def test_the_texts_of_the_clips_count(index):
    names = index.clips.names.replace(b"Rain again.", b"Rain, again", 1)
    assert names != index.clips.names
    assert with_clips(index, names=names).content_hash != index.content_hash


@pytest.mark.parametrize(
    "change",
    [
        {"symbols_hash": "another"},
        {"extractor_hash": "another"},
        {"audio": AudioConfig(fmax=7000.0)},
        {"speakers": ["somebody"]},
        {"languages": ["de"]},
        {"unknown_symbols": {"§": 2}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_the_clips_are_read_with_counts(index, change):
    assert replace(index, **change).content_hash != index.content_hash


def test_what_normalises_the_clips_counts(index):
    statistics = replace(index.statistics, mel_mean=index.statistics.mel_mean + 0.1)
    assert replace(index, statistics=statistics).content_hash != index.content_hash


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("target_loudness", -23.0, False),
        ("pitch_fmax", 400.0, False),
        ("trim_silence_db", 30.0, False),
        ("shard_megabytes", 7, True),
        ("remote", "s3://bucket/prefix", True),
    ],
)
def test_settings_of_extraction_count_and_those_of_storage_do_not(index, name, value, same):
    features = index.features.model_copy(update={name: value})
    assert (replace(index, features=features).content_hash == index.content_hash) is same


def test_how_the_clips_are_packed_does_not_count(index):
    changed = replace(index, shards=["shard-1", "shard-2"], checksums={})
    assert changed.content_hash == index.content_hash
