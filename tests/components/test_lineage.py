"""Lineage tags of runs and model versions."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from components import lineage

KNOWN = ("MYXTTS_GIT_SHA", "MYXTTS_IMAGE", "KFP_RUN_ID", lineage.VARIABLE)


@pytest.fixture(autouse=True)
def _outside_of_images(monkeypatch):
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.com")
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with one commit."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "add", "code.py")
    git(folder, "commit", "--quiet", "-m", "one")
    return folder


def test_a_checkout_is_dirty_once_a_tracked_file_differs(checkout):
    sha = git(checkout, "rev-parse", "HEAD")
    assert lineage.git_state(checkout) == {"git.sha": sha, "git.dirty": "false"}
    (checkout / "notes.txt").touch()  # untracked: no part of the code
    assert lineage.git_state(checkout) == {"git.sha": sha, "git.dirty": "false"}
    (checkout / "code.py").write_text("x = 2\n")
    assert lineage.git_state(checkout) == {"git.sha": sha, "git.dirty": "true"}


def test_an_archive_without_history_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert lineage.git_state(tmp_path) == {"git.sha": "unknown", "git.dirty": "unknown"}


@pytest.mark.parametrize(("built", "dirty"), [("abc123", "false"), ("abc123-dirty", "true")])
def test_an_image_names_the_commit_that_it_was_built_from(built, dirty, checkout, monkeypatch):
    monkeypatch.setenv("MYXTTS_GIT_SHA", built)
    assert lineage.git_state(checkout) == {"git.sha": "abc123", "git.dirty": dirty}


def test_a_run_starts_with_the_hashes_of_its_data_and_settings(checkout, tmp_path):
    (tmp_path / "dvc.lock").write_bytes(b"locked")
    (tmp_path / "params.yaml").write_bytes(b"seed: 7\n")
    assert lineage.collect(tmp_path, checkout, "run-7") == {
        "kfp.run_id": "run-7",
        "git.sha": git(checkout, "rev-parse", "HEAD"),
        "git.dirty": "false",
        "dvc.lock.sha256": hashlib.sha256(b"locked").hexdigest(),
        "params.sha256": hashlib.sha256(b"seed: 7\n").hexdigest(),
    }


def test_the_files_behind_the_hashes_outlive_the_next_run(checkout, tmp_path):
    archive = tmp_path / "archive"
    hashes = []
    for content in ("first", "second"):
        (tmp_path / "dvc.lock").write_text(content)
        hashes.append(lineage.collect(tmp_path, checkout, "run-7", archive)["dvc.lock.sha256"])
    assert [(archive / f"{digest}.dvc.lock").read_text() for digest in hashes] == ["first", "second"]


def test_a_file_that_is_not_there_has_no_hash(checkout):
    assert set(lineage.collect(checkout, checkout, "run-7")) == {"kfp.run_id", "git.sha", "git.dirty"}


def test_a_step_passes_on_the_tags_that_its_run_gave_it(monkeypatch):
    given = {"kfp.run_id": "run-7", "git.sha": "abc", "git.dirty": "true", "params.sha256": "p", "image": "local"}
    monkeypatch.setenv(lineage.VARIABLE, json.dumps(given))
    assert lineage.current() == given


def test_a_pod_adds_its_run_and_its_image(monkeypatch):
    monkeypatch.setenv("MYXTTS_GIT_SHA", "abc123")
    monkeypatch.setenv("KFP_RUN_ID", "0f-1e")
    monkeypatch.setenv("MYXTTS_IMAGE", "registry.example/train@sha256:77")
    assert lineage.current() == {
        "git.sha": "abc123",
        "git.dirty": "false",
        "kfp.run_id": "0f-1e",
        "image": "registry.example/train@sha256:77",
    }
