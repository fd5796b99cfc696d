"""MLflow and Optuna on a real PostgreSQL: two databases of one server, by the driver that the images carry."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from components import tracking
from components.state import State
from components.tracking import MlflowRunLogger
from pipelines import study

pytestmark = pytest.mark.postgres


def binary(name: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    if found is None:
        pytest.skip(f"{name} of PostgreSQL is not installed")
    return found


@pytest.fixture(scope="module")
def server():
    """A server of its own, run by an ordinary user; yields its address without a database."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        yield from served(Path(name))


def served(folder: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = []
    if not os.geteuid():  # PostgreSQL refuses to be root
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)
    initialise = [binary("initdb"), "-D", str(folder), "-U", "myxtts", "-A", "trust", "--no-sync"]
    subprocess.run([*user, *initialise], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    options = ["-D", str(folder), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-F"]
    process = subprocess.Popen([*user, binary("postgres"), *options], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        connect = [binary("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "myxtts", "-d", "postgres", "-c"]
        deadline = time.monotonic() + 30
        while subprocess.run([*connect, "select 1"], capture_output=True).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for name in ("mlflow", "optuna"):
            subprocess.run([*connect, f"create database {name}"], check=True, capture_output=True)
        yield f"postgresql+pg8000://myxtts@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # at once, whoever is still connected
        process.wait(20)


@pytest.fixture
def state(tmp_path, server, monkeypatch) -> State:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server}/mlflow")
    monkeypatch.setenv("MYXTTS_STUDY_STORAGE", f"{server}/optuna")
    return State(tmp_path / "state").prepare()


def test_runs_and_versions_are_kept(state, tmp_path):
    from components.registry import CHAMPION, Registry

    client = tracking.client(state)
    client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
    logger = MlflowRunLogger(state, state.root / "training" / "k" / "mlflow", "e", "r", {"git.sha": "a"}, {"p": 1})
    logger.metrics(3, {"validation/mel": 1.5})
    logger.close()
    assert client.get_run(logger.run_id).data.metrics["validation/mel"] == 1.5
    client.create_registered_model("voice")
    client.create_model_version("voice", (tmp_path / "artifacts").as_uri(), logger.run_id)
    registry = Registry(state)
    registry.promote("voice", "1", "", "by test")
    assert registry.aliases("voice")[CHAMPION] == "1"


def test_workers_share_a_study(state):
    import optuna

    optuna.create_study(study_name="s", storage=study.storage(state))
    for _ in range(2):
        optuna.load_study(study_name="s", storage=study.storage(state)).optimize(
            lambda trial: trial.suggest_float("x", 0, 1), n_trials=2
        )
    assert len(optuna.load_study(study_name="s", storage=study.storage(state)).trials) == 4
