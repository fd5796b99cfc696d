"""Recordings on S3: pushed file by file, resumed after an interruption, fetched by their hash."""

import os
import shutil
import stat
from types import SimpleNamespace

import pytest
import yaml

from components import dvc
from components.contracts import StepError
from components.dvc_objects import DamagedObjectError, object_path
from components.remote_recordings import RemoteRecordings
from components.resolve_data.run import folder_hash, run
from model.config.resolution import resolve
from model.features.extract import build_features
from model.features.store import FeatureStore

REMOTE = "s3://speech/dvc"
CLIPS = 12


@pytest.fixture
def project(state, s3, tmp_path):
    """A project with a small corpus and a remote on S3; `add()` returns the corpus's hash."""
    folder = tmp_path / "project"
    (folder / "corpus" / "audio").mkdir(parents=True)
    for number in range(CLIPS):
        (folder / "corpus" / "audio" / f"{number}.flac").write_bytes(os.urandom(2000))
    (folder / "corpus" / "manifest.jsonl").write_text("{}\n" * CLIPS)
    settings = {"core": {"no_scm": "true", "remote": dvc.REMOTE}, "cache": {"dir": str(tmp_path / "own-cache")}}
    dvc.write_config(folder, {**settings, f"'remote \"{dvc.REMOTE}\"'": {"url": REMOTE}}, "config")

    def add() -> str:
        dvc.run(folder, state, "add", "--quiet", "corpus")
        return yaml.safe_load((folder / "corpus.dvc").read_text())["outs"][0]["md5"]

    return SimpleNamespace(folder=folder, corpus=folder / "corpus", add=add)


def test_a_changed_clip_moves_one_clip_and_the_corpus_is_fetched_by_its_hash(project, state, s3):
    project.add()
    dvc.run(project.folder, state, "push", "--quiet")
    before = s3.keys()
    assert len(before) == CLIPS + 2  # the manifest, and the listing of the folder
    clip = project.corpus / "audio" / "5.flac"
    clip.unlink()
    clip.write_bytes(b"another recording")
    digest = project.add()
    dvc.run(project.folder, state, "push", "--quiet")
    moved = {key for key in s3.keys() - before if not key.endswith(".dir")}
    assert len(moved) == 1
    assert s3.client.get_object(Bucket="speech", Key=moved.pop())["Body"].read() == b"another recording"
    answer = run(digest, REMOTE)
    assert folder_hash(state.data(digest)) == answer.data_hash == digest
    assert (state.data(digest) / "audio" / "5.flac").read_bytes() == b"another recording"


@pytest.mark.slow
def test_a_push_that_is_cut_off_fails_and_the_rerun_completes(project, state, s3):
    digest = project.add()
    s3.writes_left = CLIPS // 2
    with pytest.raises(dvc.DvcError, match=r"`dvc push --quiet` failed in .*project"):
        dvc.run(project.folder, state, "push", "--quiet")
    arrived = s3.keys()
    assert 0 < len(arrived) <= CLIPS // 2
    assert not any(key.endswith(".dir") for key in arrived)  # the listing comes last: nobody fetches half a corpus
    s3.writes_left = None  # the server is back, with half a corpus
    with pytest.raises(StepError, match="push it first"):
        run(digest, REMOTE)
    dvc.run(project.folder, state, "push", "--quiet")
    shutil.rmtree(state.dvc_cache, ignore_errors=True)
    run(digest, REMOTE)
    assert folder_hash(state.data(digest)) == digest


def test_features_are_built_straight_from_the_remote(
    generated_corpus, generated_features, small_settings, project, state, s3, tmp_path
):
    shutil.rmtree(project.corpus)
    shutil.copytree(generated_corpus, project.corpus)
    digest = project.add()
    dvc.run(project.folder, state, "push", "--quiet")
    recordings = RemoteRecordings(REMOTE, digest)
    config = resolve(None, None, small_settings).config
    index = build_features(recordings, tmp_path / "store", config)
    assert index.content_hash == FeatureStore(generated_features).content_hash
    read = len(s3.gets)
    assert read >= len(index.clips)
    build_features(recordings, tmp_path / "store", config)
    assert len(s3.gets) == read + 1  # only the manifest: what has changed is known by name


def test_what_s3_holds_under_another_hash_is_not_streamed(project, state, s3):
    digest = project.add()
    dvc.run(project.folder, state, "push", "--quiet")
    for changed in (RemoteRecordings(REMOTE, digest).digests["manifest.jsonl"], digest):
        key = f"dvc/{object_path(changed)}"
        content = s3.client.get_object(Bucket="speech", Key=key)["Body"].read()
        s3.client.put_object(Bucket="speech", Key=key, Body=content.replace(b"{", b" {", 1))
        with pytest.raises(DamagedObjectError, match=r"damaged|has the hash"):
            RemoteRecordings(REMOTE, digest).clips()
        s3.client.put_object(Bucket="speech", Key=key, Body=content)


def test_the_site_cache_of_dvc_is_private(state):
    folder = dvc.environment(state)["DVC_SITE_CACHE_DIR"]
    assert folder.startswith(str(state.root))
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
