import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from components import tracking
from components.state import State
from components.tracking import Delivery, MlflowRunLogger, TrackingError


@pytest.fixture
def dead_server(monkeypatch) -> str:
    """Address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def open_logger(state: State, **changes) -> MlflowRunLogger:
    arguments = {"experiment": "e", "run_name": "r", "tags": {"git.sha": "abc"}, "params": {"p": 1}, "interval": 0.1}
    return MlflowRunLogger(state, state.root / "training" / "k" / "mlflow", **{**arguments, **changes})


def history(state: State, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(item.step, item.value) for item in tracking.client(state).get_metric_history(run_id, name)]


def test_values_tags_params_and_data_reach_the_run(state, tmp_path):
    digest = "0" * 32 + ".dir"
    logger = open_logger(state, dataset={"name": "corpus", "digest": digest, "source": "/data"})
    logger.metrics(3, {"validation/mel": 1.5, "train/loss": math.nan})
    (tmp_path / "plot.txt").write_text("x")
    logger.artifact(tmp_path / "plot.txt", "plots")
    logger.close()
    client = tracking.client(state)
    run = client.get_run(logger.run_id)
    assert run.data.metrics["validation/mel"] == 1.5
    assert run.data.params == {"p": "1"}
    assert run.data.tags["git.sha"] == "abc"
    assert run.inputs.dataset_inputs[0].dataset.digest == digest
    assert run.info.status == "FINISHED"
    assert [item.path for item in client.list_artifacts(logger.run_id, "plots")] == ["plots/plot.txt"]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")], ids=str
)
def test_the_run_says_how_the_work_ended(state, error, status):
    with pytest.raises(error) if error else nullcontext(), open_logger(state) as logger:
        if error:
            raise error("as it happens")
    assert tracking.client(state).get_run(logger.run_id).info.status == status


def test_a_training_joins_the_run_that_kubeflow_pipelines_made_for_its_task(state):
    """The MLflow plugin of 2.17: a run for the pipeline run, below it one per task, in an experiment of its own."""
    client = tracking.client(state)
    task = client.create_run(tracking.experiment_id(client, state, "kfp"))
    logger = open_logger(state, parent_run_id=task.info.run_id)
    logger.close()
    run = client.get_run(logger.run_id)
    assert run.data.tags["mlflow.parentRunId"] == task.info.run_id
    assert run.info.experiment_id == task.info.experiment_id  # MLflow shows children only within an experiment
    assert client.get_run(task.info.run_id).info.status == "RUNNING"  # the plugin ends it


@pytest.mark.parametrize("parent", ["f" * 32, "not-an-id", "deleted"])
def test_a_parent_that_this_mlflow_does_not_have_changes_nothing(state, parent):
    client = tracking.client(state)
    if parent == "deleted":
        parent = client.create_run(tracking.experiment_id(client, state, "kfp")).info.run_id
        client.delete_run(parent)
    logger = open_logger(state, parent_run_id=parent)
    logger.close()
    run = client.get_run(logger.run_id)
    assert "mlflow.parentRunId" not in run.data.tags
    assert client.get_experiment(run.info.experiment_id).name == "e"


def test_a_dead_server_neither_blocks_nor_loses(state, dead_server, monkeypatch):
    logger = open_logger(state)
    started = time.monotonic()
    assert not Delivery(state, logger._delivery.spool).attempt()
    one_attempt = time.monotonic() - started
    started = time.monotonic()
    for step in range(1500):
        logger.metrics(step, {"train/loss": float(step)})
    assert time.monotonic() - started < 10 * one_attempt  # calls that waited for the server would make 1500
    logger.close(timeout=20)
    assert logger.run_id == ""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    delivery = Delivery(state, state.root / "training" / "k" / "mlflow")
    assert delivery.pending() > 0
    delivery.send()
    assert delivery.pending() == 0
    assert history(state, delivery.run_id, "train/loss") == [(step, float(step)) for step in range(1500)]


def test_reopening_continues_the_same_run_and_sends_only_what_is_new(state):
    first = open_logger(state)
    first.metrics(1, {"a": 1.0})
    first.close("KILLED")
    second = open_logger(state)
    second.metrics(2, {"a": 2.0})
    second.close()
    assert first.run_id == second.run_id
    assert history(state, second.run_id, "a") == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("lost", ["deleted run", "another MLflow"])
def test_all_records_go_to_a_new_run_where_mlflow_lacks_the_one_that_had_them(state, tmp_path, monkeypatch, lost):
    first = open_logger(state, interval=60)
    first.metrics(1, {"a": 1.0})
    first.close()
    if lost == "deleted run":
        tracking.client(state).delete_run(first.run_id)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    delivery = tracking.append_to_run(state, state.root / "training/k/mlflow", {"evaluation/mcd": 6.0}, [])
    assert delivery.error == ""
    assert delivery.run_id != first.run_id
    assert history(state, delivery.run_id, "a") == [(1, 1.0)]
    assert tracking.client(state).get_run(delivery.run_id).data.metrics["evaluation/mcd"] == 6.0
    again = Delivery(state, state.root / "training/k/mlflow")
    assert again.attempt()
    assert again.run_id == delivery.run_id


def test_an_experiment_that_was_deleted_takes_runs_again(state):
    client = tracking.client(state)
    made = tracking.experiment_id(client, state, "e")
    client.delete_experiment(made)
    logger = open_logger(state)
    logger.close()
    assert client.get_run(logger.run_id).info.experiment_id == made


def test_a_line_torn_by_a_kill_costs_only_itself(state):
    first = open_logger(state)
    first.metrics(1, {"a": 1.0})
    first.close()
    with (state.root / "training/k/mlflow/records.jsonl").open("a") as file:
        file.write('{"step": 2, "metr')
    second = open_logger(state)
    second.metrics(3, {"a": 3.0})
    second.close()
    assert history(state, second.run_id, "a") == [(1, 1.0), (3, 3.0)]


def test_later_steps_add_to_a_closed_run(state, tmp_path):
    logger = open_logger(state)
    logger.close()
    (tmp_path / "report.html").write_text("<p>")
    tracking.append_to_run(
        state, state.root / "training/k/mlflow", {"evaluation/mcd": 6.0}, [tmp_path / "report.html", tmp_path / "none"]
    )
    assert tracking.client(state).get_run(logger.run_id).data.metrics == {"evaluation/mcd": 6.0}


def test_a_pod_without_a_server_is_refused(state, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        tracking.tracking_uri(state)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking.tracking_uri(state) == "http://mlflow:5000"


def test_a_database_is_made_once_though_others_ask_for_it_meanwhile(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    state, made = State(tmp_path), []

    def make(uri, _):
        made.append(uri)
        if len(made) == 1:
            other.start()
            other.join(0.5)  # it waits for the lock; without one it would make the database, too
            assert other.is_alive()
        Path(uri.removeprefix("sqlite:///")).touch()

    other = threading.Thread(target=lambda: tracking.initialize(State(tmp_path)))
    monkeypatch.setattr(tracking, "_open_database", make)
    tracking.initialize(state)
    other.join()
    assert made == [f"sqlite:///{state.tracking_database}.new"]


@pytest.mark.slow
def test_processes_that_start_together_share_one_database(tmp_path):
    code = (
        "import sys; from pathlib import Path; from components.state import State; from components import tracking;"
        "state = State(Path(sys.argv[1])); client = tracking.client(state);"
        "print(tracking.experiment_id(client, state, 'shared'))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_TRACK", "MYXTTS"))}
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    answers = {process.communicate()[0].decode().strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(answers) == 1


def test_artifacts_lie_at_an_absolute_place_in_the_state(state):
    client = tracking.client(state)
    experiment = client.get_experiment(tracking.experiment_id(client, state, "e"))
    assert experiment.artifact_location == (state.root / "mlartifacts" / "e").as_uri()


def test_delivered_position_is_remembered(state):
    logger = open_logger(state)
    logger.metrics(1, {"a": 1.0})
    logger.close()
    spool = state.root / "training/k/mlflow"
    assert json.loads((spool / "delivered.json").read_text())["position"] == (spool / "records.jsonl").stat().st_size


def test_a_database_whose_making_was_interrupted_is_made_anew(tmp_path, empty_database, monkeypatch):
    """The first start is killed in the middle of MLflow's migrations."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    state = State(tmp_path / "state")
    interrupts = [KeyboardInterrupt()]

    def open_database(uri: str, _: State) -> None:
        path = Path(uri.removeprefix("sqlite:///"))
        assert not path.exists()
        path.write_bytes(b"half of it")
        if interrupts:
            raise interrupts.pop()
        shutil.copyfile(empty_database / "mlflow.db", path)

    monkeypatch.setattr(tracking, "_open_database", open_database)
    with pytest.raises(KeyboardInterrupt):
        tracking.initialize(state)
    assert not state.tracking_database.exists()
    tracking.initialize(state)
    assert state.tracking_database.read_bytes() == (empty_database / "mlflow.db").read_bytes()
    assert sorted(path.name for path in state.root.glob("*mlflow*")) == [".mlflow.db.lock", "mlflow.db", "mlflow.ready"]
    assert tracking.client(state).search_experiments()[0].name == "Default"
