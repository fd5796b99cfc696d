"""The content hash of a store depends on the clips, not on the files that hold them."""

from dataclasses import replace

import numpy as np
import pytest

from model.config.data import AudioConfig
from model.features.index import ROW, ClipTable, FeatureIndex, load_array

LOCATIONS = {"shard", "mel_start", "token_start"}
LENGTHS = {"frames", "tokens"}
"""Columns that the content hash omits, since the digest of the clip's values covers them."""


@pytest.fixture
def index(store) -> FeatureIndex:
    return store.index


def with_clips(index: FeatureIndex, rows: np.ndarray | None = None, names: bytes | None = None) -> FeatureIndex:
    clips = index.clips
    table = ClipTable(
        clips.rows if rows is None else rows,
        clips.names if names is None else names,
        speakers=index.speakers,
        languages=index.languages,
        sample_rate=index.audio.sample_rate,
    )
    return replace(index, clips=table)


def test_the_same_clips_have_the_same_hash(index):
    assert with_clips(index).content_hash == index.content_hash


@pytest.mark.parametrize("column", sorted(set(ROW.names) - LENGTHS))
def test_the_hash_depends_on_every_column_except_locations(index, column):
    rows = index.clips.rows.copy()
    rows[column][3] = b"0" * 32 if column == "digest" else rows[column][3] + 1
    assert (with_clips(index, rows).content_hash == index.content_hash) is (column in LOCATIONS)


def test_the_hash_depends_on_the_texts(index):
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
def test_the_hash_depends_on_settings_and_names(index, change):
    assert replace(index, **change).content_hash != index.content_hash


def test_the_hash_depends_on_the_statistics(index):
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
def test_the_hash_depends_on_settings_of_extraction_and_not_of_storage(index, name, value, same):
    features = index.features.model_copy(update={name: value})
    assert (replace(index, features=features).content_hash == index.content_hash) is same


def test_the_hash_does_not_depend_on_packing(index):
    changed = replace(index, shards=["shard-1", "shard-2"], checksums={})
    assert changed.content_hash == index.content_hash


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"(2,), }", b"(2,   }"),  # the header ends within a bracket
        (b"(2,), }", b"(2,)) }"),
        (b"(2,), }", b"(9**9,)"),
        (b"{'descr'", b" {'descr"),
        (b"\x93NUMPY", b"PK\x03\x04PY"),
        (b"\x93NUMPY\x01\x00v\x00", b""),
    ],
)
def test_a_damaged_array_is_an_error_that_names_it(tmp_path, before, after, mmap_mode):
    path = tmp_path / "clips.npy"
    np.save(path, np.zeros(2))
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))
    with pytest.raises(ValueError, match=r"."):
        load_array(path, mmap_mode)


def test_an_archive_of_arrays_is_not_an_array(tmp_path):
    with (tmp_path / "clips.npy").open("wb") as file:
        np.savez(file, np.zeros(2))
    with pytest.raises(ValueError, match=r"clips\.npy is an archive"):
        load_array(tmp_path / "clips.npy")
