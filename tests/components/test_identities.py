"""Separate logins on a real MLflow server: steps write runs, only the registry's identity changes models."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from components.journal import Journal
from components.registry import CHAMPION, PREVIOUS, Registry
from components.state import State

NAME = "myxtts-toy-xtiny"
PASSWORD = "twelve characters"
SERVER_SECONDS = 180.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """An MLflow server with logins, and the users `steps` and `registry`."""
    pytest.importorskip("flask_wtf")
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    settings = folder / "auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"admin_password = {PASSWORD}\ndatabase_uri = sqlite:///{folder / 'users.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", address.rpartition(":")[2]]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 32}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for(f"{address}/health", process, folder / "log.txt")
            yield address
        finally:
            process.terminate()
            process.wait(20)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + SERVER_SECONDS
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)


@pytest.fixture
def as_user(server, tmp_path, monkeypatch):
    """Returns a function from a user to the registry with that login."""
    from mlflow.server.auth.client import AuthServiceClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)

    def login(user: str) -> Registry:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        return Registry(State(tmp_path / user).prepare())

    login("admin")
    users = AuthServiceClient(server)
    for user in ("steps", "registry"):
        try:
            users.get_user(user)
        except MlflowException:
            users.create_user(user, PASSWORD)
    return login


def test_steps_write_runs_and_read_models_but_only_the_registry_moves_aliases(as_user):
    registry = as_user("registry")
    registry.client.create_registered_model(NAME)
    for _ in range(3):
        registry.client.create_model_version(NAME, "s3://voices/one")
    registry.promote(NAME, "1", None, "first")
    registry.promote(NAME, "2", "1", "second")

    steps = as_user("steps")
    experiment = steps.client.create_experiment("trainings")
    run = steps.client.create_run(experiment)
    steps.client.log_metric(run.info.run_id, "loss", 0.5)
    assert steps.aliases(NAME) == {CHAMPION: "2", PREVIOUS: "1"}
    forbidden = [
        lambda: steps.promote(NAME, "3", None, "by a step"),
        lambda: steps.rollback(NAME, "by a step"),
        lambda: steps.make_candidate(NAME, "3", {}),
        lambda: steps.client.set_registered_model_alias(NAME, CHAMPION, "3"),
        lambda: steps.client.create_model_version(NAME, "s3://voices/one"),
        lambda: steps.client.set_model_version_tag(NAME, "3", "gate", "pass"),
    ]
    for action in forbidden:
        with pytest.raises(MlflowException) as refused:
            action()
        assert refused.value.error_code == "PERMISSION_DENIED"
    assert as_user("registry").aliases(NAME) == {CHAMPION: "2", PREVIOUS: "1"}

    # A change that the gate decided and did not finish: who may only read sees it done.
    registry = as_user("registry")
    finish = Registry._finish
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            registry.promote(NAME, "3", "2", "killed")
    assert Registry._finish is finish
    assert as_user("steps").aliases(NAME) == {CHAMPION: "3", PREVIOUS: "2"}
    assert as_user("steps").client.get_registered_model(NAME).aliases == {CHAMPION: "2", PREVIOUS: "1"}
    registry = as_user("registry")
    assert registry.aliases(NAME) == {CHAMPION: "3", PREVIOUS: "2"}
    entries = Journal(registry.client, registry._open_journal(NAME).run_id).entries()
    assert [entry.outcome for entry in entries] == ["applied"] * 3
