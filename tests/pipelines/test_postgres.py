"""MLflow and Optuna on a real PostgreSQL: two databases of one server, with the driver of the images."""

import os
import subprocess
import sys
import time
from collections import Counter

import pytest
from postgres_server import postgres_server

from components import tracking
from components.state import State
from components.tracking import MlflowRunLogger

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


WORKER = """
import sys
from pathlib import Path
from small_study import SlowTrainer, context_of
from components.state import State
from components.studies import study as module, worker
from components.studies.study import load_study

folder = Path(sys.argv[1])
trainer = SlowTrainer(folder)
worker.train, worker.MlflowRunLogger = trainer, trainer.tracker
worker.open_store, module.base_folder = (lambda features, state: features), (lambda settings, state: None)
worker.POLL_SECONDS = 0.1
state = State(folder / "state")
study = load_study(state, "shared")
worker.work(context_of(state, study), study)
"""


@pytest.mark.slow  # a minute: four processes that import torch
@pytest.mark.parametrize("rungs", [1, 3])
def test_a_study_of_four_workers_of_which_two_are_killed_ends_with_every_trial_once(state, tmp_path, rungs):
    """The killed ones train for ever; the trials that they had taken are trained by the others."""
    from optuna.trial import TrialState
    from small_study import study_arguments

    from components.studies.study import create_study

    settings = {"study.name": f"shared-{rungs}", "study.trials": 12, "study.rungs": rungs, "study.max_steps": 18}
    arguments = study_arguments(settings)
    study = create_study(state, arguments)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = WORKER.replace('"shared"', f'"shared-{rungs}"')

    def start(*options: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *options], env=environment)

    stuck = [start("stuck"), start("stuck")]
    deadline = time.monotonic() + 600
    while len(list(tmp_path.glob("stuck-*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    others = [start(), start()]
    for process in stuck:
        process.kill()
        process.wait()
    assert [process.wait(900) for process in others] == [0, 0]
    trials = study.get_trials()
    assert len(trials) == 12
    finished = {TrialState.COMPLETE} if rungs == 1 else {TrialState.COMPLETE, TrialState.PRUNED}
    assert {trial.state for trial in trials} == finished
    ends = Counter((tmp_path / "ends.txt").read_text().split())
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert ends == Counter(f"trial-{trial.number}" for trial in complete)  # none was run twice to its end
