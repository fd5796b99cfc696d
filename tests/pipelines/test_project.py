import re
import shutil
import subprocess
import threading
import time
import unicodedata
from pathlib import Path

import pytest
import yaml

from components import dvc
from components.data_versions import LATEST, DataRecords
from components.state import State
from model.config.resolution import resolve
from model.corpus.sentences import shipped_languages
from pipelines.project import Project, ProjectError, open_project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A checkout with only the files of a project."""
    folder = tmp_path / "checkout"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", ".dvc/config"):
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "model" / "corpus").mkdir(parents=True)
    for path in (ROOT / "model" / "corpus").glob("sentences_*.txt"):
        shutil.copy(path, folder / "model" / "corpus")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MYXTTS_STATE", raising=False)
    return folder


@pytest.fixture
def recordings(tmp_path) -> Path:
    return write_corpus(tmp_path / "my recordings")


CLIP = (
    '{"id": "a", "audio": "a.flac", "text": "a", "language": "en", "speaker": "s", "seconds": 5.0, '
    '"sample_rate": 1, "source_sample_rate": 1, "split": "train"}\n'
)
"""A line of a manifest."""


def write_corpus(folder: Path) -> Path:
    """Writes the smallest folder that is recognized as recordings."""
    (folder / "wavs").mkdir(parents=True)
    (folder / "metadata.csv").write_text("a|One.|One.\n")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pushed_data_are_the_newest_of_their_corpus(root, monkeypatch):
    """This includes data that were pushed before, so that returning to an earlier version takes effect."""
    (root / "data" / "corpus").mkdir(parents=True)
    (root / "data" / "corpus" / "manifest.jsonl").write_text(CLIP)
    pushes = []
    monkeypatch.setattr(dvc, "push", lambda *_: pushes.append(1))
    project = open_project()
    project.sync_dvc()
    remote = dvc.remote_url(root)
    Path(remote).mkdir(parents=True)
    for digit in "010":
        outs = [{"path": "data/corpus", "md5": digit * 32 + ".dir"}]
        (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"split": {"outs": outs}}}))
        pushed = project.push()
        assert DataRecords(remote).find(LATEST, "generated") == pushed
        assert (pushed.data_hash, pushed.seconds) == (digit * 32 + ".dir", 5.0)
    assert len(pushes) == 2


def test_settings_that_leave_the_data_alone_work_in_the_checkout(root):
    project = open_project(overrides={"training.max_steps": 7})
    assert project.folder == root
    assert project.config.training.max_steps == 7
    assert project.model_name == "myxtts-generated-tiny"


def test_recordings_get_a_project_of_their_own(root, recordings):
    project = open_project(recordings, overrides={"corpus.language": "fa"})
    assert project.folder == root / ".myxtts" / "projects" / "my-recordings"
    corpus = yaml.safe_load((project.folder / "params.yaml").read_text())["corpus"]
    assert (corpus["format"], corpus["path"], corpus["language"]) == ("ljspeech", str(recordings), "fa")
    assert resolve(project.folder / "params.yaml").config == project.config
    assert (project.folder / "dvc.yaml").read_bytes() == (root / "dvc.yaml").read_bytes()


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_recordings_keep_a_name_in_any_script(root, tmp_path, form):
    project = open_project(write_corpus(tmp_path / unicodedata.normalize(form, "Käthe & سارا")))
    assert project.config.corpus.name == "Käthe-سارا"
    assert project.model_name == "myxtts-Käthe-سارا-tiny"
    assert project.folder.is_dir()


def test_several_corpora_beside_each_other_become_a_mixed_one(root, tmp_path):
    for name in ("anna", "bob"):
        write_corpus(tmp_path / "both" / name)
    corpus = yaml.safe_load((open_project(tmp_path / "both").folder / "params.yaml").read_text())["corpus"]
    assert corpus["format"] == "mixed"
    assert [(source["format"], source["path"]) for source in corpus["sources"]] == [
        ("ljspeech", "anna"), ("ljspeech", "bob")
    ]  # fmt: skip


def test_a_format_that_is_given_is_not_guessed(root, tmp_path):
    (tmp_path / "odd").mkdir()
    project = open_project(tmp_path / "odd", overrides={"corpus.format": "vctk"})
    assert project.config.corpus.format == "vctk"


def test_the_data_stages_find_their_code_in_a_project_of_its_own(root, recordings):
    folder = open_project(recordings).folder
    assert (folder / "model").resolve() == ROOT / "model"
    assert "__pycache__" in (folder / ".dvcignore").read_text()


def test_opening_it_again_touches_nothing(root, recordings):
    folder = open_project(recordings).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert open_project(recordings).folder == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_edited_stages_and_settings_reach_it(root, recordings):
    folder = open_project(recordings).folder
    (root / "dvc.yaml").write_text((root / "dvc.yaml").read_text() + "# edited\n")
    (root / "params.yaml").write_text(
        (root / "params.yaml").read_text().replace("test_share: 0.06", "test_share: 0.07")
    )
    open_project(recordings)
    assert (folder / "dvc.yaml").read_text().endswith("# edited\n")
    assert yaml.safe_load((folder / "params.yaml").read_text())["split"]["test_share"] == 0.07


def test_two_folders_of_one_name_do_not_share_a_project(root, recordings, tmp_path):
    other = write_corpus(tmp_path / "elsewhere" / "my recordings")
    folders = {open_project(path).folder for path in (recordings, other, recordings, other)}
    assert len(folders) == 2


def test_generated_data_with_other_settings_leaves_the_checkout_as_it_is(root):
    before = tree(root)
    given = {"sentences_per_voice": 3, "name": "toy", "generated_voices": {"de": 1}}
    project = open_project(overrides={f"corpus.{name}": value for name, value in given.items()})
    assert project.folder == root / ".myxtts" / "projects" / "toy"
    written = yaml.safe_load((project.folder / "params.yaml").read_text())["corpus"]
    assert {name: written[name] for name in given} == given
    copied = {path.name for path in (project.folder / "sentences").glob("sentences_*.txt")}
    assert copied == {f"sentences_{language}.txt" for language in shipped_languages()}
    assert {name: data for name, data in tree(root).items() if not name.startswith(".myxtts")} == before


def test_a_missing_folder_is_named(root):
    with pytest.raises(ProjectError, match=r"nowhere is not a folder.*transcripts"):
        open_project(Path("nowhere"))


def test_the_local_remote_follows_the_state(root, tmp_path, monkeypatch):
    project = open_project()
    project.sync_dvc()
    assert dvc.remote_url(root) == str(root / ".myxtts" / "dvc-remote")
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / "moved"))
    open_project().sync_dvc()
    assert dvc.remote_url(root) == str(tmp_path / "moved" / "dvc-remote")


def test_a_remote_that_the_user_set_stays_and_holds_for_recordings_too(root, recordings):
    config = root / ".dvc" / "config"
    config.write_text(config.read_text().replace("../.myxtts/dvc-remote", "s3://bucket/voices"))
    for data in (None, recordings):
        project = open_project(data)
        project.sync_dvc()
        assert dvc.remote_url(project.folder) == "s3://bucket/voices"


def test_a_remote_with_credentials_is_refused_with_the_secret_to_use(root):
    config = root / ".dvc" / "config"
    config.write_text(config.read_text().replace("../.myxtts/dvc-remote", "s3://id:hunter2@bucket/voices"))
    project = open_project()
    project.sync_dvc()
    for use in (project.push, project.require_pushed, lambda: dvc.remote_url(root)):
        with pytest.raises(dvc.DvcError, match=r"s3://bucket/voices contains user info.*cluster\.s3_secret") as caught:
            use()
        assert "hunter2" not in str(caught.value)


def test_credentials_of_a_remote_in_the_local_configuration_stay(root, tmp_path, monkeypatch):
    storage = "'remote \"storage\"'"
    dvc.write_config(root, {storage: {"url": "/of/an/earlier/state", "access_key_id": "me, #1"}})
    open_project().sync_dvc()
    kept = dvc.read_config(root, "config.local")[storage]
    assert kept == {"url": str(root / ".myxtts" / "dvc-remote"), "access_key_id": "me, #1"}
    dvc.write_config(root, {storage: {"url": "s3://bucket/mine", "profile": "team"}})
    open_project().sync_dvc()
    assert dvc.read_config(root, "config.local")[storage] == {"url": "s3://bucket/mine", "profile": "team"}
    assert dvc.remote_url(root) == "s3://bucket/mine"


def test_without_a_lock_the_error_says_what_to_run(root):
    with pytest.raises(dvc.DvcError, match="dvc repro"):
        open_project().run_arguments()


def lock_data(project: Project) -> None:
    """Writes the dvc.lock that the data stages would write for the current settings of a project."""
    parameters = yaml.safe_load((project.folder / "params.yaml").read_text())
    sections = {"audio.sample_rate": parameters["audio"]["sample_rate"]}
    sections |= {name: parameters[name] for name in ("corpus", "validation", "split")}
    outs = [{"path": "data/corpus", "md5": "0" * 32 + ".dir"}]
    stages = {"split": {"params": {"params.yaml": sections}, "outs": outs}}
    (project.folder / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"validation.min_seconds": 0.7}, "validation.min_seconds = 0.5, but the settings say 0.7"),
        ({"split.test_share": 0.1}, "split.test_share = 0.06, but the settings say 0.1"),
        ({"audio.sample_rate": 16000}, "audio.sample_rate = 22050, but the settings say 16000"),
    ],
)
def test_data_of_other_settings_is_refused_with_the_setting(root, recordings, change, named):
    scratch = {"training.start_from": "none"}
    lock_data(open_project(recordings))
    assert open_project(recordings, overrides=scratch).run_arguments()["data"] == "0" * 32 + ".dir"
    with pytest.raises(ProjectError, match=re.escape(named)):
        open_project(recordings, overrides=scratch | change).run_arguments()
    assert open_project(recordings, overrides=scratch | {"training.max_steps": 5, "seed": 5}).run_arguments()


def test_an_edited_params_file_of_the_checkout_is_noticed(root):
    lock_data(open_project())
    open_project().run_arguments()
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("tolerated_bad_share: 0.05", "tolerated_bad_share: 0.2"))
    with pytest.raises(ProjectError, match=r"tolerated_bad_share = 0\.05, but the settings say 0\.2.*dvc repro"):
        open_project().run_arguments()


def test_outside_of_a_checkout_the_error_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match=r"no dvc\.yaml"):
        open_project()


def test_runs_of_one_project_make_their_data_one_after_the_other(recordings, monkeypatch, caplog):
    """Each uses its own settings, also if both were opened before the first started."""
    first, second = (open_project(recordings, overrides={"split.min_held_out": count}) for count in (1, 2))
    made, begun, go = [], threading.Event(), threading.Event()

    def repro(folder, *_, **__):
        made.append(yaml.safe_load((folder / "params.yaml").read_text())["split"]["min_held_out"])
        begun.set()
        assert go.wait(120)

    monkeypatch.setattr(dvc, "run", repro)
    monkeypatch.setattr(Project, "push", lambda _: None)
    threads = [threading.Thread(target=project.make_data) for project in (first, second)]
    threads[0].start()
    assert begun.wait(120)
    threads[1].start()
    while "waiting for another process" not in caplog.text:
        time.sleep(0.01)
    assert made == [1]
    go.set()
    for thread in threads:
        thread.join(120)
    assert made == [1, 2]


def test_the_data_stages_run_without_advice_about_git(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / "state"))
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    (folder / "dvc.yaml").write_text("stages: {make: {cmd: echo 1 > made.txt, outs: [made.txt]}}")
    dvc.reproduce(folder, State.locate().prepare())
    shown = capfd.readouterr().err
    assert "Running stage 'make'" in shown
    assert "git" not in shown
    assert (folder / "dvc.lock").is_file()
    assert not (folder / ".dvc" / "config.local").exists()  # the user's own `dvc` commands keep git


@pytest.mark.parametrize("name", ["voices #2, final", 'it\'s "quoted" = 100%'])
def test_dvc_uses_the_cache_and_the_remote_of_a_state_with_any_path(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / name / "state"))
    folder = tmp_path / name / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / "dvc.yaml").write_text("stages: {make: {cmd: echo 1 > made.txt, outs: [made.txt]}}")
    project = Project(folder, State.locate().prepare(), resolve())
    project.sync_dvc()
    dvc.reproduce(folder, project.state)
    dvc.push(folder, project.state)
    for place in (project.state.dvc_cache, project.state.dvc_remote):
        assert [path.read_text() for path in place.rglob("*") if path.is_file() and path.stat().st_size == 2] == ["1\n"]
    assert dvc.remote_url(folder) == str(project.state.dvc_remote)
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_path_that_dvc_would_change_is_refused(tmp_path):
    with pytest.raises(dvc.DvcError, match=r"move the folder"):
        dvc.write_config(tmp_path, {"cache": {"dir": "/data/%(home)s/cache"}})
    assert not (tmp_path / ".dvc").exists()


STAGES = """
stages:
  split:
    cmd: mkdir -p data/corpus && cat recordings/* > data/corpus/manifest.jsonl
    deps: [recordings]
    params: [seed]
    outs: [data/corpus]
"""


@pytest.fixture
def clones(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Two clones with one remote; the data was made in the first, and only the first has the recordings."""
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.delenv("MYXTTS_STATE", raising=False)
    for folder in (first, second):
        (folder / ".dvc").mkdir(parents=True)
        (folder / "params.yaml").write_text("seed: 1\ncorpus: {path: recordings}\n")
        (folder / "dvc.yaml").write_text(STAGES)
        settings = {"core": {"remote": "team"}, "'remote \"team\"'": {"url": str(tmp_path / "shared")}}
        dvc.write_config(folder, settings, "config")
    (first / "recordings").mkdir()
    (first / "recordings" / "a.json").write_text(CLIP)
    monkeypatch.chdir(first)
    open_project().make_data()
    shutil.copyfile(first / "dvc.lock", second / "dvc.lock")
    return first, second


def test_a_clone_without_recordings_uses_the_data_of_its_lock(clones, monkeypatch, caplog):
    first, second = clones
    monkeypatch.chdir(second)
    project = open_project()
    project.make_data()
    assert (second / "data" / "corpus" / "manifest.jsonl").read_text() == CLIP
    assert project.run_arguments()["data"] == dvc.output_hash(first, "data/corpus")
    assert f"{second}/recordings does not exist; using the data" in caplog.text


def test_a_clone_without_recordings_names_the_setting_in_which_its_data_differ(clones, monkeypatch):
    _, second = clones
    monkeypatch.chdir(second)
    (second / "params.yaml").write_text("seed: 2\ncorpus: {path: recordings}\n")
    with pytest.raises(ProjectError, match="seed = 1, but the settings say 2"):
        open_project().make_data()
    (second / "dvc.lock").unlink()
    with pytest.raises(ProjectError, match=r"corpus\.path: .*recordings does not exist; correct the path"):
        open_project().make_data()
