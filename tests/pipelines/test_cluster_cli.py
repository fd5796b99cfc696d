"""`myxtts pipeline ... --target cluster`: what it starts, what it says, and its exit status."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kfp_settings import COMMIT, IMAGES, connect

from components import dvc
from model.config import ConfigError
from pipelines.cli.pipeline import pipeline as pipeline_group
from pipelines.project import ProjectError
from pipelines.run_records import RunError

pytestmark = pytest.mark.usefixtures("logged_out")


def program(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipelines.cli.main", "pipeline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


@pytest.mark.parametrize(
    ("script", "token", "status", "said"),
    [(["SUCCEEDED"], "right", 0, "SUCCEEDED"), (["FAILED"], "right", 1, "step train failed"), ([], "wrong", 2, "401")],
)
def test_the_programs_exit_status_tells_how_it_went(host, double, pipeline, told, script, token, status, said):
    double.tokens = {"right": {"team"}}
    run, _ = start_as(double, host, pipeline, told)
    double.script = script
    done = program(
        "status", run.id, "--target", "cluster", "--host", host, "--namespace", "team", MYXTTS_KFP_TOKEN=token
    )
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert token not in done.stdout + done.stderr


def start_as(double, host, pipeline, told):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYXTTS_KFP_TOKEN", "right")
        return connect(host).trigger(pipeline, told, "generated", COMMIT)


def test_runs_are_listed_as_data(host, double, pipeline, told):
    run, _ = connect(host).trigger(pipeline, told, "generated", COMMIT)
    done = program("list", "--target", "cluster", "--host", host, "--namespace", "team", "--json")
    assert [item["id"] for item in json.loads(done.stdout)] == [run.id]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A project whose data stages have run, on a remote that pods reach."""
    folder = tmp_path / "checkout"
    (folder / ".dvc").mkdir(parents=True)
    root = Path(__file__).parents[2]
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(root / name, folder / name)
    outs = [{"path": "data/corpus", "md5": "0" * 32 + ".dir"}]
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": {"split": {"outs": outs}}}))
    settings = {"core": {"remote": "storage"}, "'remote \"storage\"'": {"url": "s3://data/dvc"}}
    dvc.write_config(folder, settings, "config")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MYXTTS_STATE", raising=False)
    return folder


def run_on_cluster(host: str, *more: str):
    options = [part for key, value in IMAGES.items() for part in ("--set", f"{key}={value}")]
    where = ["--target", "cluster", "--host", host, "--namespace", "team", "--set", "cluster.poll_seconds=0.01"]
    return CliRunner().invoke(pipeline_group, ["run", *where, *options, *more])


def cloud(monkeypatch, answer: str) -> None:
    """What `dvc status --cloud` says."""
    real = dvc.run
    monkeypatch.setattr(dvc, "run", lambda *told, **kept: answer if "--cloud" in told else real(*told, **kept))


@pytest.mark.parametrize(
    ("script", "more", "status"),
    [
        (["RUNNING", "SUCCEEDED"], [], 0),
        (["RUNNING", "FAILED"], [], 1),
        (["CANCELED"], [], 1),
        (["RUNNING"], ["--no-wait"], 0),
    ],
)
def test_run_triggers_waits_and_answers_with_its_exit_status(checkout, host, double, monkeypatch, script, more, status):
    cloud(monkeypatch, "{}")
    double.script = script
    done = run_on_cluster(host, "--json", *more)
    assert done.exit_code == status, done.output
    (run,) = double.runs.values()
    assert run["runtime_config"]["parameters"]["data_hash"] == "0" * 32 + ".dir"
    assert run["display_name"].startswith("myxtts-generated-tiny-")
    assert f"{host}/#/runs/details/{run['run_id']}" in done.output


def test_data_that_was_not_pushed_starts_nothing(checkout, host, double, monkeypatch):
    cloud(monkeypatch, json.dumps({"data/corpus": "new"}))
    done = run_on_cluster(host)
    assert isinstance(done.exception, ProjectError)  # the program's exit status 2
    assert "`dvc push`" in str(done.exception)
    assert not double.runs


def test_a_remote_that_is_a_folder_starts_nothing(checkout, host, double):
    dvc.write_config(
        checkout, {"core": {"remote": "storage"}, "'remote \"storage\"'": {"url": str(checkout / "remote")}}, "config"
    )
    done = run_on_cluster(host)
    assert isinstance(done.exception, ProjectError)
    assert "dvc remote modify" in str(done.exception)
    assert not double.runs


def test_a_missing_image_starts_nothing(checkout, host, double):
    done = run_on_cluster(host, "--set", "cluster.train_image=''")
    assert isinstance(done.exception, ConfigError)
    assert "cluster.train_image is not set" in str(done.exception)
    assert not double.calls


def invoke(host: str, command: str, *more: str):
    images = [part for key, value in IMAGES.items() for part in ("--set", f"{key}={value}")]
    where = ["--target", "cluster", "--host", host, "--namespace", "team"]
    return CliRunner().invoke(pipeline_group, [command, *more, *where, *images], catch_exceptions=False)


def test_schedules_are_made_listed_and_removed_by_name(checkout, host, double, monkeypatch):
    cloud(monkeypatch, "{}")
    assert invoke(host, "schedule", "--cron", "0 0 3 * * *").exit_code == 0
    (made,) = json.loads(invoke(host, "schedule", "--json").output)
    assert (made["name"], made["cron"]) == ("myxtts-generated-tiny", "0 0 3 * * *")
    assert invoke(host, "schedule", "--remove").exit_code == 0
    assert not double.recurring
    with pytest.raises(RunError, match="no schedule is named"):
        invoke(host, "schedule", "--remove")


def test_a_run_is_cancelled_by_its_id(checkout, host, double, pipeline, told):
    run, _ = connect(host).trigger(pipeline, told, "generated", COMMIT)
    assert invoke(host, "cancel", run.id).exit_code == 0
    assert double.runs[run.id]["state"] == "CANCELED"
    assert invoke(host, "cancel").exit_code == 2  # nobody's run is ended by leaving out its name


def test_objects_for_a_gitops_repository_are_written(checkout, host, tmp_path):
    output = tmp_path / "objects.yaml"
    assert invoke(host, "compile", "--format", "kubernetes", "--output", str(output)).exit_code == 0
    kinds = [item["kind"] for item in yaml.safe_load_all(output.read_text())]
    assert kinds == ["Pipeline", "PipelineVersion"]
