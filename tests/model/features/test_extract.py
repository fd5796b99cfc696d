"""Building features: only changed clips are extracted again, and failed builds resume."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from small_speech import CONFIG

import model.features.extract
from model.audio.io import write_audio
from model.config.schema import Config
from model.corpus.manifest import read_manifest, write_manifest
from model.errors import FeatureError
from model.features import shards
from model.features.extract import Part, build_features, extract_part
from model.features.extractor import ClipExtractor
from model.features.store import FeatureStore

RATE = 22050


@pytest.fixture
def corpus(small_corpus, tmp_path):
    """A copy of the small corpus that a test may change."""
    return shutil.copytree(small_corpus, tmp_path / "corpus")


@pytest.fixture
def extracted(monkeypatch):
    """Ids of the clips that are extracted (not reused), in order."""
    ids = []
    extract = ClipExtractor.extract

    def watched(self, recordings, clips, keys):
        ids.extend(clip.id for clip in clips)
        return extract(self, recordings, clips, keys)

    monkeypatch.setattr(ClipExtractor, "extract", watched)
    return ids


def changed_features(**settings) -> Config:
    return Config.model_validate({"features": {**CONFIG.features.model_dump(), **settings}})


def change(corpus, position, **values):
    clips = read_manifest(corpus)
    clips[position] = replace(clips[position], **values)
    write_manifest(corpus, clips)


def test_unchanged_clips_are_reused(corpus, tmp_path, extracted):
    first = build_features(corpus, tmp_path / "store", CONFIG)
    assert len(extracted) == len(first.clips)
    extracted.clear()
    again = build_features(corpus, tmp_path / "store", CONFIG)
    assert extracted == []
    assert again.content_hash == first.content_hash
    assert sorted(os.listdir(tmp_path)) == ["corpus", "store"]


@pytest.mark.parametrize("megabyte", [2**20, 1000])
def test_only_changed_clips_are_extracted_again(corpus, tmp_path, extracted, voiced, monkeypatch, megabyte):
    monkeypatch.setattr(model.features.extract, "MEGABYTE", megabyte)
    monkeypatch.setattr(model.features.extract, "CHUNK", 4)
    build_features(corpus, tmp_path / "store", CONFIG)
    for changed, values in ((6, {"text": "Something else."}), (9, {})):
        extracted.clear()
        clip = read_manifest(corpus)[changed]
        if values:
            change(corpus, changed, **values)
        else:
            write_audio(corpus / clip.audio, voiced(1.3, 190.0, seed=99), RATE)
        grown = build_features(corpus, tmp_path / "store", CONFIG)
        assert extracted == [clip.id]
        FeatureStore(tmp_path / "store").verify()
        assert grown.content_hash == build_features(corpus, tmp_path / f"fresh-{changed}", CONFIG).content_hash


def test_changed_speakers_ids_and_order_change_the_index_alone(corpus, tmp_path, extracted):
    first = build_features(corpus, tmp_path / "store", CONFIG)
    extracted.clear()
    clips = read_manifest(corpus)[::-1]
    clips[3] = replace(clips[3], speaker="carol", id="renamed")
    write_manifest(corpus, clips)
    second = build_features(corpus, tmp_path / "store", CONFIG)
    assert extracted == []
    assert second.content_hash != first.content_hash
    assert [clip.id for clip in second.clips] == [clip.id for clip in clips]
    assert "carol" in second.statistics.log_f0
    again, before = FeatureStore(tmp_path / "store").clip(len(clips) - 1), first.clips[0]
    assert again.id == before.id
    assert len(again.mel) == before.frames


def test_shards_with_few_needed_clips_are_repacked(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(model.features.extract, "MEGABYTE", 4000)  # one shard of the corpus is about this large
    build_features(corpus, tmp_path / "store", CONFIG)
    before = sum(path.stat().st_size for path in (tmp_path / "store" / "shards").iterdir())
    clips = read_manifest(corpus)
    write_manifest(corpus, clips[:2])
    build_features(corpus, tmp_path / "store", CONFIG)
    after = sum(path.stat().st_size for path in (tmp_path / "store" / "shards").iterdir())
    assert after < before / 5


def test_features_of_other_code_or_settings_are_not_reused(corpus, tmp_path, extracted):
    build_features(corpus, tmp_path / "store", CONFIG, code="one")
    count = len(extracted)
    build_features(corpus, tmp_path / "store", CONFIG, code="one")
    assert len(extracted) == count
    build_features(corpus, tmp_path / "store", CONFIG, code="two")
    assert len(extracted) == 2 * count
    build_features(corpus, tmp_path / "store", changed_features(pitch_fmax=400.0), code="two")
    assert len(extracted) == 3 * count
    build_features(corpus, tmp_path / "store", changed_features(shard_megabytes=1), code="one")
    assert len(extracted) == 4 * count  # the store of "one" was replaced long ago


def test_equal_clips_are_extracted_once(corpus, tmp_path, extracted):
    clips = read_manifest(corpus)
    write_manifest(corpus, [*clips, replace(clips[2], id="twin", speaker="bob")])
    index = build_features(corpus, tmp_path / "store", CONFIG)
    assert len(extracted) == len(clips)
    store = FeatureStore(tmp_path / "store")
    assert np.array_equal(store.clip(2).mel, store.clip(len(clips)).mel)
    assert len(index.clips) == len(clips) + 1


def test_joined_parts_equal_one_build(corpus, small_features, tmp_path, extracted):
    parts = [tmp_path / f"part-{number}" for number in range(3)]
    counts = [extract_part(corpus, folder, CONFIG, Part(n, 3)) for n, folder in enumerate(parts)]
    assert sum(counts) == len(extracted) == 25
    assert max(counts) - min(counts) <= 1
    index = build_features(corpus, tmp_path / "store", CONFIG, earlier=parts)
    assert len(extracted) == 25
    assert index.content_hash == FeatureStore(small_features).content_hash


def test_an_error_keeps_what_was_done_and_the_rerun_completes(corpus, small_features, tmp_path, extracted, monkeypatch):
    monkeypatch.setattr(model.features.extract, "CHUNK", 4)
    name = read_manifest(corpus)[13].audio
    whole = (corpus / name).read_bytes()
    (corpus / name).write_bytes(whole[:500])
    with pytest.raises(FeatureError, match=r"clip .*-13: .*; run `dvc repro`"):
        build_features(corpus, tmp_path / "store", CONFIG)
    assert not (tmp_path / "store").exists()
    done = len(extracted) - 4  # the task with the broken file is lost
    (corpus / name).write_bytes(whole)
    extracted.clear()
    index = build_features(corpus, tmp_path / "store", CONFIG)
    assert len(extracted) == 25 - done < 25
    assert index.content_hash == FeatureStore(small_features).content_hash
    FeatureStore(tmp_path / "store").verify()


SCRIPT = """
import os, signal, sys
from pathlib import Path
import model.features.extract
from model.config.schema import Config

model.features.extract.CHUNK = 2
model.features.extract.MEGABYTE = 2000
corpus, destination, kill_at, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
config = Config.model_validate_json(sys.argv[5])

def report(progress):
    print(progress.done, progress.reused, flush=True)
    if kill_at and progress.done >= kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

model.features.extract.build_features(corpus, destination, config, workers=workers, report=report)
"""


def build_in_process(corpus, destination, kill_at=0, workers=1, command=()):
    arguments = [corpus, destination, kill_at, workers, CONFIG.model_dump_json()]
    return subprocess.run(
        [*command, sys.executable, "-c", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_kill_in_the_middle_loses_no_finished_clip(corpus, small_features, tmp_path, extracted, monkeypatch):
    killed = build_in_process(corpus, tmp_path / "store", kill_at=17, workers=2)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "store").exists()
    (rest,) = tmp_path.glob(".store.partial")
    (rest / "shards" / "pieces" / ".shard.1.partial").write_bytes(b"half")
    monkeypatch.setattr(model.features.extract, "CHUNK", 2)
    monkeypatch.setattr(model.features.extract, "MEGABYTE", 2000)
    build_features(corpus, tmp_path / "store", CONFIG)
    assert len(extracted) <= 25 - 17
    store = FeatureStore(tmp_path / "store")
    store.verify()
    assert store.content_hash == FeatureStore(small_features).content_hash
    assert sorted(os.listdir(tmp_path)) == ["corpus", "store"]


@pytest.mark.slow  # two builds in processes of their own; test_a_failed_write_leaves_no_partial_file has the error
def test_a_full_disk_is_an_error_and_a_rerun_with_space_completes(corpus, small_features, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    script = f"mount -t tmpfs -o size=1200k none {small} && " + '"$@"; status=$?; ls -A ' + f"{small}; "
    script += f"mount -o remount,size=64m {small} && " + '"$@"; ' + f"cp -a {small} {tmp_path}/after; exit $status"
    probe = ("unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1200k", "none", str(small))
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount a small disk of its own")
    done = build_in_process(corpus, small / "store", command=("unshare", "-rm", "sh", "-c", script, "sh"))
    assert done.returncode != 0
    assert "FeatureError" in done.stderr
    assert "cannot be written (No space left on device); free some space there and run again" in done.stderr
    assert ".store.partial" in done.stdout
    assert "\nstore\n" not in done.stdout
    store = FeatureStore(tmp_path / "after" / "store")
    store.verify()
    assert store.content_hash == FeatureStore(small_features).content_hash
    reused = [int(line.split()[1]) for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert max(reused) > 0


def test_a_failed_write_leaves_no_partial_file(corpus, tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards.os, "fsync", no_space)
    with pytest.raises(FeatureError, match="No space left on device"):
        build_features(corpus, tmp_path / "store", CONFIG)
    assert [path for path in (tmp_path / ".store.partial").rglob("*") if path.is_file()] == []


def test_a_damaged_earlier_shard_is_not_reused(corpus, tmp_path, extracted, caplog):
    build_features(corpus, tmp_path / "store", CONFIG)
    (shard,) = (tmp_path / "store" / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    extracted.clear()
    build_features(corpus, tmp_path / "store", CONFIG)
    assert len(extracted) == 25
    assert "damaged, its clips are extracted again" in caplog.text
    FeatureStore(tmp_path / "store").verify()


def test_a_second_build_of_the_same_store_is_an_error(corpus, tmp_path):
    def build_another(progress):
        with pytest.raises(FeatureError, match="another process is writing there"):
            build_features(corpus, tmp_path / "store", CONFIG)

    build_features(corpus, tmp_path / "store", CONFIG, report=build_another)


def test_progress_has_speed_and_time_left(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(model.features.extract, "CHUNK", 10)
    reports = []
    began = time.monotonic()
    build_features(corpus, tmp_path / "store", CONFIG, report=reports.append)
    elapsed = time.monotonic() - began
    assert [(item.done, item.total, item.reused) for item in reports] == [
        (0, 25, 0),
        (10, 25, 0),
        (20, 25, 0),
        (25, 25, 0),
    ]
    total = sum(clip.seconds for clip in read_manifest(corpus))
    for item in reports:
        assert item.seconds + item.left_seconds == pytest.approx(total)
    assert reports[-1].speed >= total / elapsed
    assert reports[-1].time_left == pytest.approx(0, abs=1e-6)
    assert reports[1].time_left == pytest.approx(reports[1].left_seconds / reports[1].speed)


def test_loudness_is_normalized_without_clipping(corpus, tmp_path, voiced):
    sound = voiced(1.5, 140.0)
    for position, gain in enumerate((1.0, 0.1, 0.02)):
        write_audio(corpus / read_manifest(corpus)[position].audio, sound * gain, RATE)
    plain = build_features(corpus, tmp_path / "plain", changed_features(target_loudness=0.0))
    even = build_features(corpus, tmp_path / "even", changed_features(target_loudness=-23.0))
    assert {clip.gain for clip in plain.clips} == {1.0}
    levels = [
        [FeatureStore(tmp_path / name).clip(position).energy.mean() for position in range(3)]
        for name in ("plain", "even")
    ]
    assert np.ptp(levels[0]) > 3.5
    assert np.ptp(levels[1]) < 0.2
    gains = [even.clips[position].gain for position in range(3)]
    assert gains[1] == pytest.approx(10 * gains[0], rel=0.02)
