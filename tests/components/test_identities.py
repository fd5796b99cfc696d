"""Separate logins on a real MLflow server: steps write runs, only the registry's identity changes models."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import pytest
from evaluated_voice import evaluated_voice
from mlflow.exceptions import MlflowException
from mlflow_server import mlflow_server

from components import lineage
from components.artifacts import ARTIFACT_TAG
from components.journal import Journal
from components.mlflow_identities import PASSWORDS, make_identities, write_settings
from components.register.run import run as register_voice
from components.registry import CANDIDATE, CHAMPION, PREVIOUS, Registry, find_voice
from components.state import State
from model.evaluation.metric_table import GATE_METRICS
from model.files import write_json

NAME = "myxtts-toy-xtiny"
PASSWORD = "twelve characters"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """An MLflow server with logins, started as the pod does it, with artifacts that only it can reach."""
    pytest.importorskip("flask_wtf")
    folder = tmp_path_factory.mktemp("server")
    backend = f"sqlite:///{folder / 'mlflow.db'}"
    environment = {
        **dict.fromkeys(PASSWORDS.values(), PASSWORD),
        "BACKEND": backend,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 32,
    }
    run = partial(subprocess.run, check=True, env={**os.environ, **environment})
    run([sys.executable, "-m", "mlflow", "db", "upgrade", backend], capture_output=True)
    run([sys.executable, "-m", "components.mlflow_identities", str(folder / "auth.ini")])
    options = ("--app-name", "basic-auth")
    with mlflow_server(folder, backend, str(folder / "artifacts"), *options, environment=environment) as address:
        yield address


@pytest.fixture
def as_user(server, tmp_path, monkeypatch):
    """Returns a function from a user to the registry with that login and a state of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)

    def login(user: str) -> Registry:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / user))
        return Registry(State(tmp_path / user).prepare())

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
    entries = Journal(registry.client, registry.journal(NAME).run_id).entries()
    assert [entry.outcome for entry in entries] == ["applied"] * 3


def test_steps_train_and_the_registry_registers_through_the_server(as_user, tmp_path, monkeypatch):
    """Both without a key of the artifacts' store; and steps cannot change what a version says of its files."""
    monkeypatch.setenv(lineage.VARIABLE, "{}")
    voice = tmp_path / "voice"
    write_json(voice / "voice.json", {"config": {"model": {"use_pretrained_speaker_encoder": False}, "features": {}}})
    (voice / "model.safetensors").write_bytes(b"weights")
    as_user("steps")
    inputs = evaluated_voice(State.locate(), voice, tmp_path / "evaluation", dict.fromkeys(GATE_METRICS, 0.5))
    registry = as_user("registry")
    number = register_voice(**inputs, name="registered").version
    assert registry.aliases("registered") == {CANDIDATE: number}
    assert registry.client.get_run(registry.version("registered", number).run_id).info.status == "FINISHED"

    steps = as_user("steps")
    found = find_voice(f"models:/registered@{CANDIDATE}")  # downloads and compares with the hash of the version
    assert (found / "model.safetensors").read_bytes() == b"weights"
    with pytest.raises(MlflowException) as refused:
        steps.client.set_model_version_tag("registered", number, ARTIFACT_TAG, "0" * 64)
    assert refused.value.error_code == "PERMISSION_DENIED"


def test_a_changed_secret_changes_the_password(tmp_path):
    """What runs before the server may run again, and leaves roles and users as they are."""
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    database = f"sqlite:///{tmp_path / 'users.db'}"
    for password in (PASSWORD, f"another {PASSWORD}"):
        make_identities(database, dict.fromkeys(PASSWORDS, password))
    store = SqlAlchemyStore()
    store.init_db(database)
    assert store.authenticate_user("steps", f"another {PASSWORD}")
    assert not store.authenticate_user("steps", PASSWORD)
    users = {
        user.username: (user.is_admin, [role.name for role in roles]) for user, roles in store.list_users_with_roles()
    }
    assert users == {"admin": (True, []), "steps": (False, []), "registry": (False, ["registry"])}


def test_the_settings_hold_the_address_as_mlflow_reads_it(tmp_path, monkeypatch):
    """Configuration files interpolate `%`, which passwords in addresses may contain."""
    from mlflow.server.auth.config import read_auth_config

    path = write_settings(tmp_path / "auth.ini", "postgresql+pg8000://mlflow:a%2Fb@postgres/mlflow", "100 % secret")
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(path))
    read = read_auth_config()
    assert read.database_uri == "postgresql+pg8000://mlflow:a%2Fb@postgres/mlflow"
    assert (read.admin_username, read.admin_password, read.default_permission) == ("admin", "100 % secret", "READ")
    assert path.stat().st_mode & 0o077 == 0
