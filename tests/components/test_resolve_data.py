import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from components import dvc
from components.contracts import StepError
from components.data_versions import DataRecords
from components.dvc_objects import DamagedObjectError, object_path
from components.resolve_data.run import folder_hash, pin, results, run
from components.state import State
from model.corpus.manifest import ManifestError


@pytest.fixture(scope="module")
def remote_of_a_project(tmp_path_factory) -> tuple[str, Path]:
    """A corpus of three files that a project has pushed to a remote: (its hash, the remote)."""
    folder = tmp_path_factory.mktemp("pushed")
    state, project, remote = State(folder / "state").prepare(), folder / "project", folder / "remote"
    (project / "corpus" / "audio").mkdir(parents=True)
    for name, text in (("manifest.jsonl", "{}\n{}\n"), ("audio/a.flac", "a"), ("audio/é.flac", "b")):
        (project / "corpus" / name).write_text(text)
    settings = {"core": {"no_scm": "true", "remote": dvc.REMOTE}, "cache": {"dir": str(folder / "own-cache")}}
    dvc.write_config(project, {**settings, f"'remote \"{dvc.REMOTE}\"'": {"url": str(remote)}}, "config")
    dvc.run(project, state, "add", "--quiet", "corpus")
    dvc.run(project, state, "push", "--quiet")
    digest = yaml.safe_load((project / "corpus.dvc").read_text())["outs"][0]["md5"]
    assert digest == folder_hash(project / "corpus")
    return digest, remote


@pytest.fixture
def pushed(state, remote_of_a_project, tmp_path) -> tuple[str, str]:
    """The hash of a pushed corpus, and a remote of this test alone that holds it."""
    digest, remote = remote_of_a_project
    shutil.copytree(remote, tmp_path / "remote")
    return digest, str(tmp_path / "remote")


def test_data_is_fetched_by_its_hash_and_kept(pushed, state):
    digest, remote = pushed
    answer = run(digest, remote)
    folder = state.data(digest)
    assert answer.corpus == folder
    assert answer.data_hash == digest == folder_hash(folder)
    shutil.rmtree(remote)
    assert run(digest, remote).corpus == folder
    assert sorted(os.listdir(folder.parent)) == [folder.name]


def test_the_validation_of_the_data_is_shown(pushed, state, tmp_path):
    digest, remote = pushed
    output = run(digest, remote)
    assert "myxtts corpus push" in results(output).html.read_text()
    (tmp_path / "report.html").write_text("<h1>Corpus</h1>")
    DataRecords(remote).write_report(digest, tmp_path / "report.html")
    output = run(digest, remote)
    assert results(output).html.read_text() == "<h1>Corpus</h1>"
    shutil.rmtree(remote)
    assert run(digest, remote) == output
    assert results(output).html.read_text() == "<h1>Corpus</h1>"


def test_a_pinned_corpus_is_fetched_beside_that_of_the_training(pushed, state, tmp_path, generated_corpus):
    digest, remote = pushed
    alone = run(digest, remote)
    assert (alone.examination, alone.examination_hash) == (alone.corpus, digest)
    pinned = pin(generated_corpus, remote)
    assert pinned == folder_hash(generated_corpus)
    answer = run(digest, remote, pinned)
    assert (answer.corpus, answer.data_hash) == (alone.corpus, digest)
    assert answer.examination_hash == pinned == folder_hash(answer.examination)
    assert [path.name for path in state.root.glob("data/.fetch-*")] == []


def test_a_folder_without_a_corpus_is_not_pinned(state, tmp_path):
    with pytest.raises(ManifestError):
        pin(tmp_path, str(tmp_path / "remote"))


def test_a_hash_that_was_never_pushed_is_refused_and_leaves_nothing(pushed, state):
    with pytest.raises(StepError, match=r"cannot be fetched from .*remote: push it first"):
        run("0" * 32 + ".dir", pushed[1])
    assert os.listdir(state.root / "data") == []


@pytest.mark.parametrize("digest", ["", "main", "0" * 32, "g" * 32 + ".dir", "../../etc.dir"])
def test_what_is_no_folder_hash_is_refused(digest, state):
    with pytest.raises(StepError, match="not the hash of a DVC folder"):
        run(digest, "/nowhere")


def test_damaged_data_is_not_passed_on(pushed, state, monkeypatch):
    digest, remote = pushed
    monkeypatch.setattr("components.resolve_data.run.folder_hash", lambda folder: "f" * 32 + ".dir")
    with pytest.raises(StepError, match="damaged"):
        run(digest, remote)
    assert not state.data(digest).exists()


def planted(remote: str, entries: list[dict[str, str]], digest: str = "") -> str:
    """Stores a listing in a remote, under its own hash or another, and returns the hash."""
    content = json.dumps(entries, sort_keys=True).encode()
    digest = digest or hashlib.md5(content).hexdigest() + ".dir"
    path = Path(remote) / object_path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return digest


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("own_hash", [True, False])
def test_a_listing_whose_path_leads_outside_plants_nothing(pushed, state, tmp_path, own_hash):
    """Even if the hash is correct, since an attacker who makes the corpus can compute it."""
    digest, remote = pushed
    listing = json.loads((Path(remote) / object_path(digest)).read_text())
    listing[0]["relpath"] = "../../../planted"
    bad = planted(remote, listing, "" if own_hash else digest)
    before = files_below(tmp_path)
    with pytest.raises(DamagedObjectError, match="outside its folder" if own_hash else "has the hash"):
        run(bad, remote)
    new = files_below(tmp_path) - before
    assert not any("planted" in name for name in new)
    assert not state.data(bad).exists()


def test_a_listing_whose_hash_leads_outside_the_cache_is_refused(pushed, state):
    remote = pushed[1]
    bad = planted(remote, [{"md5": "../../../../planted", "relpath": "manifest.jsonl"}])
    with pytest.raises(DamagedObjectError, match=r"has the hash '\.\./"):
        run(bad, remote)


def test_a_rewritten_file_is_refused_and_does_not_stay_in_the_cache(pushed, state):
    digest, remote = pushed
    listing = json.loads((Path(remote) / object_path(digest)).read_text())
    target = Path(remote) / object_path(listing[0]["md5"])
    target.chmod(0o600)
    original = target.read_bytes()
    target.write_bytes(b"another recording")
    with pytest.raises(StepError):
        run(digest, remote)
    assert not state.data(digest).exists()
    target.write_bytes(original)
    assert folder_hash(run(digest, remote).corpus) == digest


def test_a_damaged_listing_in_the_cache_is_fetched_again(pushed, state):
    digest, remote = pushed
    path = state.dvc_cache / object_path(digest)
    path.parent.mkdir(parents=True)
    path.write_text('[{"md5": "../x", "relpath": "../x"}]')
    assert folder_hash(run(digest, remote).corpus) == digest
