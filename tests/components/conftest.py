"""A state folder whose MLflow database is copied from one that was made once: making it takes seconds."""

import shutil
from pathlib import Path

import pytest

from components import tracking
from components.state import State


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    state = State(tmp_path_factory.mktemp("template"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.initialise(state)
    return state.root


@pytest.fixture
def state(tmp_path, empty_database, monkeypatch) -> State:
    root = tmp_path / "state"
    root.mkdir()
    for name in ("mlflow.db", "mlflow.ready"):
        shutil.copyfile(empty_database / name, root / name)
    monkeypatch.setenv("MYXTTS_STATE", str(root))
    for name in ("MLFLOW_TRACKING_URI", "KUBERNETES_SERVICE_HOST", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return State(root).prepare()
