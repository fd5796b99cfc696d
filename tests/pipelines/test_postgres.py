"""MLflow and Optuna on a real PostgreSQL: two databases of one server, with the driver of the images."""

import pytest
from postgres_server import postgres_server

from components import tracking
from components.state import State
from components.tracking import MlflowRunLogger
from pipelines import study

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server():
    with postgres_server("mlflow", "optuna") as address:
        yield address


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
