"""Errors that a user can fix are explained in one line; defects keep their traceback."""

import errno
import json

import pytest
from safetensors import SafetensorError

from components.failures import explain
from components.outage import retry_during_outage
from components.state import StateError


@pytest.mark.parametrize(
    ("error", "explanation"),
    [
        (StateError("lost; run again"), "lost; run again"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No space left on device; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "/a: Permission denied; choose another place"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", b"/\xff"),
            "/\udcff: No such file or directory; ",
        ),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left on device; free some"),
    ],
)
def test_errors_that_a_user_can_fix_name_the_place_and_the_fix(error, explanation):
    assert explain(error).startswith(explanation)


def test_an_mlflow_server_that_is_not_there_is_named(monkeypatch):
    from mlflow.exceptions import RestException

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    explanation = explain(
        RestException({"error_code": "INTERNAL_ERROR", "message": f"asked {'x' * 999} connection refused"})
    )
    assert "asked xx" in explanation
    assert "connection refused; check that" in explanation
    assert len(explanation) < 450


@pytest.mark.parametrize("address", ["https://user:hunter2@mlflow:5000", "https://mlflow:5000?token=hunter2"])
def test_messages_name_servers_without_credentials(address, monkeypatch):
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for error in (MlflowException(f"API request to {address} failed"), StateError(f"{address} does not answer")):
        explanation = explain(error)
        assert "https://mlflow:5000" in explanation
        assert "hunter2" not in explanation


def test_the_log_of_an_outage_has_no_credentials(caplog):
    answers = iter([OSError("http://user:hunter2@s3:8333 refused"), None])

    def ask() -> None:
        if error := next(answers):
            raise error

    retry_during_outage(ask, lambda error: True, "asking http://user:hunter2@s3:8333", sleep=lambda seconds: None)
    assert "asking http://s3:8333: http://s3:8333 refused" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        ("INTERNAL_ERROR", "see the log of the server"),
        ("RESOURCE_DOES_NOT_EXIST", "`myxtts run` sends the records"),
        ("PERMISSION_DENIED", "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_an_error_response_of_mlflow_is_shown_and_not_called_an_outage(code, fix, monkeypatch):
    from mlflow.exceptions import RestException

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    explanation = explain(RestException({"error_code": code, "message": "database\nis gone"}))
    assert explanation.startswith(f"MLflow http://mlflow:5000 answered: {code}: database is gone; ")
    assert fix in explanation
    assert "names a server that answers" not in explanation


def test_a_damaged_database_is_named(tmp_path, monkeypatch):
    from components.state import State
    from components.tracking import client

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("mlflow.db", "mlflow.ready"):
        (tmp_path / name).write_text("garbage")
    with pytest.raises(Exception, match="not a database") as caught:
        client(State(tmp_path)).search_registered_models()
    assert explain(caught.value).startswith("a database cannot be used: ")


def test_defects_are_not_explained():
    errors = (ZeroDivisionError(), KeyError("a"), BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("no number"))
    assert [explain(error) for error in errors] == [""] * 4


def test_a_step_on_a_full_disk_says_so_in_one_line(monkeypatch, tmp_path, capsys):
    from components import runner as step
    from components.gate import run as gate

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(gate, "run", full)
    monkeypatch.setattr(step, "log_to_output", lambda: None)
    with pytest.raises(SystemExit):
        step.run_step("gate", None)
    *_, said = capsys.readouterr().out.splitlines()
    assert json.loads(said.removeprefix(step.EVENT))["error"].startswith(f"{tmp_path}: No space left on device; free")
