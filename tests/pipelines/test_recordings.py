"""`run --data` accepts the folders that `corpus import` accepts, without the files that DVC cannot hash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from model.config.data import CorpusConfig
from model.corpus.readers import read_corpus, survey
from model.errors import CorpusError
from pipelines.project import followable, open_project


@pytest.fixture
def recordings(tmp_path):
    """Three clips, one of them a broken link, and an ignore file."""
    folder = tmp_path / "mine"
    (folder / "wavs").mkdir(parents=True)
    rows = []
    for name in ("c01", "c02", "c03"):
        soundfile.write(folder / "wavs" / f"{name}.wav", [0.1, -0.1] * 4000, 16000)
        rows.append(f"{name}|This is clip {name}.")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "wavs" / "c02.wav").unlink()
    (folder / "wavs" / "c02.wav").symlink_to("nowhere.wav")
    (folder / "wavs" / ".dvcignore").write_text("*.tmp\n")
    return folder


def found(folder, follow_links=False):
    source = read_corpus(CorpusConfig(**survey(folder, follow_links), follow_links=follow_links))
    return [(u.id, u.text, u.speaker) for u in source.utterances], [(p.file, p.reason) for p in source.problems]


def test_a_folder_that_dvc_follows_stays_itself(recordings, tmp_path):
    (recordings / "wavs" / "c02.wav").unlink()
    (recordings / "wavs" / ".dvcignore").unlink()
    assert followable(recordings, tmp_path / "project") == recordings
    assert not (tmp_path / "project").exists()


def test_links_stand_for_all_that_dvc_can_hash_and_say_the_same(recordings, tmp_path):
    mirror = followable(recordings, tmp_path / "project")
    assert mirror != recordings
    assert found(mirror, follow_links=True) == found(recordings)
    assert found(recordings)[1] == [("wavs/c02.wav", "missing_recording")]
    stage = f"stages: {{s: {{cmd: 'echo > out', deps: ['{mirror}'], outs: [out]}}}}\n"
    (tmp_path / "dvc.yaml").write_text(stage)
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    for arguments in (("init", "--no-scm", "-q"), ("repro",)):
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_links_follow_the_folder(recordings, tmp_path):
    followable(recordings, tmp_path / "project")
    (recordings / "wavs" / "c01.wav").unlink()
    (recordings / "more.wav").write_bytes(b"RIFF")
    mirror = followable(recordings, tmp_path / "project")
    assert sorted(path.relative_to(mirror).as_posix() for path in mirror.rglob("*.*")) == [
        "metadata.csv", "more.wav", "wavs/c03.wav"
    ]  # fmt: skip


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The current folder is a checkout of its own with a state folder of its own."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text("model_size: tiny\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / "state"))
    return root


@pytest.mark.parametrize("nested", [False, True])
def test_a_folder_has_one_project_however_often_it_is_opened(recordings, checkout, tmp_path, nested):
    data = recordings
    if nested:
        data = tmp_path / "download"
        data.mkdir()
        Path(recordings).rename(data / "inner")
    first, second = open_project(data), open_project(data)
    assert first.folder == second.folder
    assert first.config == second.config
    assert first.config.corpus.format == "ljspeech"
    assert first.config.corpus.name == data.name


@pytest.mark.parametrize("known_format", [False, True])
def test_a_link_out_of_the_folder_is_refused_unless_links_may_be_followed(recordings, checkout, tmp_path, known_format):
    own = {"corpus.format": "ljspeech"} if known_format else {}
    (recordings / "wavs" / "c03.wav").rename(tmp_path / "elsewhere.wav")
    (recordings / "wavs" / "c03.wav").symlink_to(tmp_path / "elsewhere.wav")
    with pytest.raises(CorpusError, match=r"1 symbolic link leads out .*wavs/c03.wav to .*corpus.follow_links=true"):
        open_project(recordings, overrides=own)
    project = open_project(recordings, overrides={**own, "corpus.follow_links": True})
    assert sorted(u.id for u in read_corpus(project.config.corpus).utterances) == ["c01", "c03"]


@pytest.mark.parametrize("overrides", [{}, {"corpus.follow_links": False}])
def test_the_links_of_the_project_itself_are_read(recordings, checkout, overrides):
    corpus = open_project(recordings, overrides=overrides).config.corpus
    assert corpus.path != str(recordings)
    assert sorted(u.id for u in read_corpus(corpus).utterances) == ["c01", "c03"]
