"""The whole run against servers: data and models on S3, MLflow on PostgreSQL, secrets only where they belong.

S3 is moto, which accepts any credentials and keeps objects in memory, or OpenStack Swift, which checks signatures.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import mlflow_server
from postgres_server import postgres_server
from swift_server import ACCESS, SECRET, swift_server
from toy_run import SETTINGS

from components.contracts import StepError
from components.resolve_data import run as resolve_data
from components.state import State

ROOT = Path(__file__).parents[2]
DOCKER = {
    "docker.network": "host",
    "docker.pass_environment": "[AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, "
    "MLFLOW_TRACKING_URI]",
}

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@contextlib.contextmanager
def moto_server(folder: Path) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@pytest.fixture(scope="module", params=[moto_server, swift_server])
def s3(request, tmp_path_factory):
    """Environment variables for an S3 server with a bucket."""
    with request.param(tmp_path_factory.mktemp("s3")) as address:
        variables = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        bucket(variables).create_bucket(Bucket="myxtts")
        yield variables


@pytest.fixture(scope="module")
def servers(s3, tmp_path_factory):
    """S3, and MLflow on PostgreSQL with its artifacts on S3; yields the environment variables of both."""
    folder = tmp_path_factory.mktemp("mlflow")
    environment = {**s3, "MLFLOW_S3_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"]}
    with (
        postgres_server("mlflow") as databases,
        mlflow_server(folder, f"{databases}/mlflow", "s3://myxtts/mlflow", environment=environment) as address,
    ):
        yield {**s3, "MLFLOW_TRACKING_URI": address}


def bucket(variables: dict[str, str]):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )


@pytest.fixture
def state(tmp_path, monkeypatch) -> State:
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / "state"))
    return State.locate().prepare()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A project with a remote on S3."""
    folder = tmp_path / "checkout"
    (folder / "model" / "corpus").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    for path in (ROOT / "model" / "corpus").glob("sentences_*.txt"):
        shutil.copy(path, folder / "model" / "corpus")
    (folder / ".dvc" / "config").write_text(
        "[core]\n    remote = storage\n['remote \"storage\"']\n    url = s3://myxtts/dvc\n"
    )
    return folder


@pytest.mark.parametrize("target", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_data_runs_and_models_lie_on_the_servers(servers, checkout, tmp_path, target):
    state = tmp_path / "state"
    environment = {**os.environ, **servers, "MYXTTS_STATE": str(state), "PYTHONPATH": str(ROOT)}
    settings = {**SETTINGS, **(DOCKER if target == "docker" else {}), "corpus.name": f"toy-{target}"}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    script = "from pipelines.project import open_project; import sys; from pipelines.cli.options import "
    script += "parse_assignments; open_project(None, None, parse_assignments(tuple(sys.argv[1:]))).make_data()"
    data = [sys.executable, "-c", script, *(f"{key}={value}" for key, value in settings.items())]
    run = [sys.executable, "-m", "pipelines.cli.main", "pipeline", "run", "--target", target, *options]
    for command in (data, run):
        done = subprocess.run(command, capture_output=True, text=True, cwd=checkout, env=environment, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
    keys = [item["Key"] for item in bucket(servers).list_objects_v2(Bucket="myxtts")["Contents"]]
    assert any(key.startswith("dvc/files/md5/") for key in keys)
    assert any(key.startswith("mlflow/") and key.endswith("model.safetensors") for key in keys)
    shown = subprocess.run(
        [sys.executable, "-m", "pipelines.cli.main", "registry", "list", "--json"],
        capture_output=True,
        text=True,
        cwd=checkout,
        env=environment,
    )
    versions = {item["name"]: item["aliases"] for item in json.loads(shown.stdout)}
    assert versions[f"myxtts-toy-{target}-xtiny"] == ["candidate", "champion"]
    assert not (state / "mlflow.db").exists()
    for path in state.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_a_wrong_signature_is_refused_with_the_fix(state, tmp_path, monkeypatch):
    with swift_server(tmp_path / "swift") as address:
        variables = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        for name, value in {**variables, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        bucket(dict(os.environ)).create_bucket(Bucket="myxtts")
        with pytest.raises(StepError, match="push it first"):
            resolve_data.run("0" * 32 + ".dir", "s3://myxtts/dvc")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StepError, match="refuses the credentials"):
            resolve_data.run("0" * 32 + ".dir", "s3://myxtts/dvc")
