"""Typing errors in every command: one line says what is wrong, where and how to fix it, with status 2."""

import re

import pytest

from components.registry import Registry
from components.state import State
from pipelines.cli.main import main


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """An empty state with its database, which takes a second to create."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def project(tmp_path, state, monkeypatch):
    """A project without data, with a state and no servers, as the current folder."""
    for name in ("MLFLOW_TRACKING_URI", "MYXTTS_STUDY_STORAGE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MYXTTS_STATE", str(state))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "params.yaml").write_text("model_size: xtiny\n")
    (folder / "text.yaml").write_bytes(b"\xff\xfe")
    (folder / "list.yaml").write_text("- a\n")
    (folder / "section.yaml").write_text("training: 3\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fails(capsys):
    """Returns a function that runs the program with arguments, expects a failure, and returns (status, output)."""

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("config", "show", "--set", "training.max_steps=["), "the value is not valid YAML"),
        (("config", "show", "--set", "training.max_steps"), "KEY=VALUE"),
        (("config", "show", "--set", "training.max_steps=soon"), "valid integer"),
        (("config", "show", "--set", "training.maxsteps=1"), "did you mean `training.max_steps`"),
        (("config", "show", "--set", "training=1"), "is a section"),
        (("config", "show", "--config", "section.yaml"), "is a section"),
        (("config", "show", "--config", "nowhere.yaml"), "no such file"),
        (("config", "show", "--config", "."), "Is a directory; give a file"),
        (("config", "show", "--config", "text.yaml"), "not a readable YAML file"),
        (("config", "show", "--config", "list.yaml"), "is a list"),
        (("run", "--data", "nowhere"), "not a folder"),
        (("run", "--set", "loss.mel_loss_weight=45"), "dominates the other terms"),
        (("run", "--set", "vocoder.checkpoint=/nowhere"), "/nowhere does not exist"),
        (("run", "--set", "registry.name=a/b"), "may hold only letters"),
        (("run", "--model-size", "huge"), "not one of"),
        (("study", "run", "--set", "loss.mel_loss_weight=45"), "dominates the other terms"),
        (("study", "run", "--set", "study.space=[loss.mel_loss_wait]"), "did you mean `loss.mel_loss_weight`"),
        (("study", "run", "a/b"), "study.name"),
        (("study", "run", "--host", "h"), "--host requires --target cluster"),
        (("study", "show"), "there is no study yet; `myxtts study run` makes one"),
        (("study", "best", "mine"), "there is no study yet"),
        (("study", "worker", "mine"), "there is no study yet"),
        (("study", "status"), "there is no study yet"),
        (("pipeline", "run"), "myxtts run"),
        (("pipeline", "run", "--no-wait", "--force"), "--no-wait requires --target cluster"),
        (("pipeline", "run", "--host", "h"), "--host requires --target cluster"),
        (("pipeline", "list", "--limit", "0"), "x>=1"),
        (("pipeline", "list", "--set", "a.b=1"), "--set requires --target cluster"),
        (("pipeline", "logs", "--step", "train"), "--step requires --target cluster"),
        (("pipeline", "status"), "`myxtts run` makes the first"),
        (("pipeline", "cancel", "run-1"), "has no runs yet"),
        (("pipeline", "compile", "--target", "local", "--output", "no/where.yaml"), "no/where.yaml: No such file"),
        (("pipeline", "list", "--target", "cluster"), "cluster.host is not set"),
        (("registry", "list", "nobody"), "no model is named 'nobody'"),
        (("registry", "show", "o'brien"), "no model is named"),
        (("registry", "promote", "a/b:c", "1"), "no model is named 'a/b:c'"),
        (("registry", "rollback", "nobody"), "no model is named 'nobody'"),
        (("synthesize", "--model", "models:/nobody@champion", "hello"), "no model is named 'nobody'"),
    ],
)
def test_one_line_says_what_and_how(project, fails, arguments, said):
    status, output = fails(*arguments)
    assert status == 2
    assert said in output
    assert "Traceback" not in output
    assert not (project / ".dvc").exists()  # nothing was begun


@pytest.mark.parametrize("description", [b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_voice_is_named(project, fails, description):
    (project / "voice.json").write_bytes(description)
    status, output = fails("synthesize", "--model", ".", "hello")
    assert status == 2
    assert re.match(
        r"myxtts: voice\.json: .*(damaged|does not describe a voice); fetch or export the voice again", output
    )


@pytest.mark.parametrize("command", [("pipeline", "list"), ("registry", "list")])
def test_a_state_that_is_a_file_is_refused(project, fails, monkeypatch, command):
    monkeypatch.setenv("MYXTTS_STATE", str(project / "dvc.yaml"))
    status, output = fails(*command)
    assert status == 2
    assert "MYXTTS_STATE" in output


def test_a_server_that_does_not_answer_is_named(project, fails, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    status, output = fails("registry", "list")
    assert status == 2
    assert output.startswith("myxtts: MLflow http://127.0.0.1:9: ")
    assert len(output.splitlines()) == 1


def test_an_empty_registry_is_made_without_a_word(project, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / "new"))
    assert Registry(State.locate()).names() == []
    assert capfd.readouterr().err == ""
