"""The journal as a history: who changed what, whichever machine it was, in entries that nothing overwrites."""

import json

import pytest
from mlflow.exceptions import MlflowException
from mlflow_server import mlflow_server

from components.author import Author, mlflow_tags, this_author
from components.registry import Registry
from components.state import State

NAME = "myxtts-toy-xtiny"


@pytest.fixture
def database(state):
    """Address of the registry that all machines share: here a database."""
    return f"sqlite:///{state.tracking_database}"


@pytest.fixture
def server(tmp_path):
    """Address of a real MLflow server."""
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts")) as address:
        yield address


@pytest.fixture(params=["database", pytest.param("server", marks=pytest.mark.slow)])
def machines(request, tmp_path, monkeypatch):
    """Function: name -> the registry as a machine of this name sees it, with a state folder and a commit of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue(request.param))
    for name in ("KFP_RUN_ID", "MYXTTS_LINEAGE", "MYXTTS_SERVICE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)

    def machine(name: str) -> Registry:
        monkeypatch.setattr("socket.gethostname", lambda: name)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", f"user of {name}")
        monkeypatch.setenv("MYXTTS_GIT_SHA", f"commit of {name}")
        return Registry(State(tmp_path / name).prepare())

    client = machine("home").client
    client.create_registered_model(NAME)
    for number in range(5):
        client.create_model_version(NAME, f"s3://voices/{number}")
    return machine


def test_the_history_of_two_machines_reads_correctly(machines, capsys):
    """Five promotions, one of them forced, and a rollback; the other machine made two of them."""
    machines("home").promote(NAME, "1", "", "first", best_in=["pitch_error"])
    machines("home").promote(NAME, "2", "1", "better", evidence={"evaluation": "runs:/2/evaluation"})
    machines("away").promote(NAME, "3", "2", "better")
    machines("away").rollback(NAME, "clicks")
    machines("home").promote(NAME, "4", None, "forced: a new corpus", forced=True, evidence={"overruled": "mel: fail"})
    machines("home").promote(NAME, "5", "4", "better")
    machines("home").promote(NAME, "1", "5", "by hand")
    history = machines("third").history(NAME)
    assert [entry.number for entry in history] == list(range(1, 8))
    assert {entry.outcome for entry in history} == {"applied"}
    done = [entry.operation for entry in history]
    assert [(item.action, item.version, item.replaced, item.forced) for item in done] == [
        ("promote", "1", "", False),
        ("promote", "2", "1", False),
        ("promote", "3", "2", False),
        ("rollback", "2", "3", False),
        ("promote", "4", "2", True),
        ("promote", "5", "4", False),
        ("promote", "1", "5", False),
    ]
    places = [(item.author.user, item.author.host, item.author.commit) for item in done]
    home, away = ((f"user of {name}", name, f"commit of {name}") for name in ("home", "away"))
    assert places == [home, home, away, away, home, home, home]
    assert [item.reason for item in done][2:5] == ["better", "clicks", "forced: a new corpus"]
    assert [item.time for item in done] == sorted(item.time for item in done)
    assert done[1].evidence == {"evaluation": "runs:/2/evaluation"}
    assert done[4].evidence == {"overruled": "mel: fail"}
    assert done[0].best_in == ("pitch_error",)
    assert capsys.readouterr().out == ""  # MLflow prints addresses of runs on a server


def test_entries_of_the_history_cannot_be_changed(machines):
    registry = machines("home")
    registry.promote(NAME, "1", "", "first")
    journal = registry.journal(NAME)
    with pytest.raises(MlflowException):
        registry.client.log_param(journal.run_id, "000001", "forged")
    assert registry.history(NAME)[0].operation.reason == "first"


@pytest.mark.parametrize("machines", ["database"], indirect=True)
def test_entries_of_earlier_versions_of_the_program_are_read(machines):
    registry = machines("home")
    registry.promote(NAME, "1", "", "first")
    journal = registry.journal(NAME)
    written = {"id": "f0", "action": "promote", "version": "2", "reason": "better", "replaced": "1", "earlier": ["1"]}
    written |= {"time": "2026-01-02T03:04:05Z", "writer": "a 1 2", "metrics": None}
    registry.client.log_param(journal.run_id, "000002", json.dumps(written))
    journal.close(2, "applied")
    old = registry.history(NAME)[1]
    assert (old.operation.version, old.operation.time, old.outcome) == ("2", "2026-01-02T03:04:05Z", "applied")
    assert (old.operation.author, old.operation.best_in, old.operation.evidence) == (None, None, {})


def test_an_author_in_a_pod_has_a_service_account(monkeypatch):
    monkeypatch.setenv("MYXTTS_SERVICE_ACCOUNT", "myxtts-runner")
    monkeypatch.setenv("MYXTTS_NAMESPACE", "speech")
    monkeypatch.setenv("MYXTTS_GIT_SHA", "abc-dirty")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "pod7")
    monkeypatch.setattr("getpass.getuser", lambda: "anna")
    identity = "system:serviceaccount:speech:myxtts-runner"
    assert this_author() == Author(user="anna", host="pod7", identity=identity, commit="abc-dirty")


def test_an_account_without_a_name_is_its_number(monkeypatch):
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("os.getuid", lambda: 1234)
    assert this_author().user == "uid 1234"


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["/x/kfp/executor_main.py", "--component_module_path", "p", "--function_to_execute", "train"], "step train"),
        (["/x/bin/myxtts", "vocoder", "train", "--output", "x"], "myxtts vocoder train"),
        (["/x/bin/myxtts", "train", "--set", "a=1"], "myxtts train"),
    ],
)
def test_runs_name_their_user_program_and_commit_as_mlflow_shows_them(monkeypatch, arguments, program):
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MYXTTS_GIT_SHA", "abc-dirty")
    monkeypatch.delenv("MYXTTS_LINEAGE", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert mlflow_tags() == {
        "mlflow.user": "anna",
        "mlflow.source.name": program,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "abc",
    }
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert mlflow_tags()["mlflow.source.type"] == "JOB"
