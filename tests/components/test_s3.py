"""Data and models on S3: DVC's remote and MLflow's artifacts on a server that speaks its API."""

import contextlib
import io
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from components import dvc, tracking
from components.contracts import StepError
from components.outage import PAUSE_SECONDS, retry_during_outage
from components.resolve_data.run import folder_hash, run
from components.tracking import MlflowRunLogger

SECRET = "hunter2hunter2"


class Server:
    """An S3 server that can be stopped and restarted on the same address without losing objects."""

    def __init__(self) -> None:
        self._server = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        import logging

        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        with contextlib.redirect_stderr(io.StringIO()):
            self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def server():
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch) -> str:
    import boto3

    for key, value in {
        "AWS_ENDPOINT_URL": server.address,
        "MLFLOW_S3_ENDPOINT_URL": server.address,
        "AWS_ACCESS_KEY_ID": "access",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(key, value)
    boto3.client("s3").create_bucket(Bucket="myxtts")
    return "myxtts"


@pytest.fixture
def project(state, bucket, tmp_path) -> Path:
    """A project whose corpus is in its cache; nothing is pushed yet."""
    project = tmp_path / "project"
    (project / "data" / "corpus" / "audio").mkdir(parents=True)
    (project / "data" / "corpus" / "manifest.jsonl").write_text("{}\n")
    (project / "data" / "corpus" / "audio" / "a.flac").write_text("a")
    settings = {"core": {"no_scm": "true", "remote": dvc.REMOTE}, "cache": {"dir": str(tmp_path / "own-cache")}}
    dvc.write_config(project, {**settings, f"'remote \"{dvc.REMOTE}\"'": {"url": f"s3://{bucket}/dvc"}}, "config")
    dvc.run(project, state, "add", "--quiet", "data/corpus")
    return project


def hash_of(project: Path) -> str:
    return yaml.safe_load((project / "data" / "corpus.dvc").read_text())["outs"][0]["md5"]


def test_data_goes_over_s3_by_its_hash_and_no_secret_is_written(state, project):
    digest = hash_of(project)
    with pytest.raises(StepError, match="push it first"):
        run(digest, "s3://myxtts/dvc")
    dvc.run(project, state, "push", "--quiet")
    answer = run(digest, "s3://myxtts/dvc")
    assert folder_hash(answer.corpus) == digest
    for path in (*state.root.rglob("*"), *project.rglob("*")):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_server_that_comes_back_while_data_is_fetched_is_waited_for(state, project, server, monkeypatch):
    monkeypatch.setattr("components.outage.PAUSE_SECONDS", 0.1)
    dvc.run(project, state, "push", "--quiet")
    server.stop()
    back = threading.Timer(3.0, server.start)
    back.start()
    try:
        answer = run(hash_of(project), "s3://myxtts/dvc")
    finally:
        back.join()
    assert answer.data_hash == hash_of(project)


def test_a_server_that_comes_back_during_a_push_is_waited_for(state, project, server, monkeypatch):
    now, waits = [0.0], []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds
        server.start()

    patient = partial(retry_during_outage, sleep=pause, clock=lambda: now[0])
    monkeypatch.setattr(dvc, "retry_during_outage", patient)
    server.stop()
    dvc.push(project, state)
    assert waits == [PAUSE_SECONDS]  # test_outage.py waits longer
    assert folder_hash(run(hash_of(project), "s3://myxtts/dvc").corpus) == hash_of(project)


@pytest.mark.slow
def test_a_real_half_minute_without_a_server_delays_push_and_fetch(state, project, server):
    for work in (partial(dvc.push, project, state), partial(run, hash_of(project), "s3://myxtts/dvc")):
        server.stop()
        back = threading.Timer(30.0, server.start)
        back.start()
        began = time.monotonic()
        try:
            work()
        finally:
            back.join()
        assert time.monotonic() - began > 30
    assert folder_hash(state.data(hash_of(project))) == hash_of(project)


def test_artifacts_reach_s3_after_an_outage(state, bucket, server, monkeypatch, tmp_path):
    """The spool keeps what the store has not accepted, and training does not wait for it."""
    client = tracking.client(state)
    client.create_experiment("on-s3", artifact_location=f"s3://{bucket}/mlflow")
    (tmp_path / "plot.txt").write_text("x")
    server.stop()
    try:
        spool = state.root / "training" / "k" / "mlflow"
        logger = MlflowRunLogger(state, spool, "on-s3", "r", {}, {}, interval=0.1)
        logger.artifact(tmp_path / "plot.txt", "plots")
        logger.metrics(1, {"loss": 1.0})
        logger.close(timeout=20)
        assert tracking.Delivery(state, spool).pending()
    finally:
        server.start()
    assert tracking.Delivery(state, spool).attempt()
    assert [item.path for item in client.list_artifacts(logger.run_id, "plots")] == ["plots/plot.txt"]
