"""`myxtts pipeline ... --target cluster`: the requests, the output and the exit status."""

import json
import shutil
from pathlib import Path

import argo_names
import pytest
import yaml
from click.testing import CliRunner
from kfp_settings import COMMIT, IMAGES, connect

from components import dvc
from components.data_versions import DataVersion
from model.config.resolution import ConfigError
from pipelines import run_pods
from pipelines.cli.pipeline import pipeline as pipeline_group
from pipelines.cron import CronError
from pipelines.project import Project, ProjectError
from pipelines.run_records import RunError

pytestmark = pytest.mark.usefixtures("logged_out")


@pytest.mark.parametrize(
    ("script", "token", "status", "said"),
    [(["SUCCEEDED"], "right", 0, "SUCCEEDED"), (["FAILED"], "right", 1, "step train failed"), ([], "wrong", 2, "401")],
)
def test_the_exit_status_is_that_of_the_run(
    host, double, pipeline, run_arguments, myxtts, monkeypatch, script, token, status, said
):
    double.tokens = {"right": {"team"}}
    run, _ = start_as(double, host, pipeline, run_arguments)
    double.script = script
    monkeypatch.setenv("MYXTTS_KFP_TOKEN", token)
    ended, output, errors = myxtts(
        "pipeline", "status", run.id, "--target", "cluster", "--host", host, "--namespace", "team"
    )
    assert ended == status, errors
    assert said in output + errors
    assert "Traceback" not in errors
    assert token not in output + errors


def start_as(double, host, pipeline, run_arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYXTTS_KFP_TOKEN", "right")
        return connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)


def test_runs_are_listed_as_data(host, double, pipeline, run_arguments, myxtts):
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    _, output, _ = myxtts("pipeline", "list", "--target", "cluster", "--host", host, "--namespace", "team", "--json")
    assert [item["id"] for item in json.loads(output)] == [run.id]


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
    """Replaces the output of `dvc status --cloud`."""
    real = dvc.run
    monkeypatch.setattr(
        dvc,
        "run",
        lambda *run_arguments, **kept: answer if "--cloud" in run_arguments else real(*run_arguments, **kept),
    )


@pytest.mark.parametrize(
    ("script", "more", "status"),
    [
        (["RUNNING", "SUCCEEDED"], [], 0),
        (["RUNNING", "FAILED"], [], 1),
        (["RUNNING"], ["--no-wait"], 0),
    ],
)
def test_run_triggers_waits_and_answers_with_its_exit_status(checkout, host, double, monkeypatch, script, more, status):
    cloud(monkeypatch, "{}")
    monkeypatch.setattr("pipelines.cluster.OVERLAP_SECONDS", 0.1)
    monkeypatch.setattr("pipelines.cluster.SETTLED_SECONDS", 0.1)
    double.script = script
    done = run_on_cluster(host, "--json", *more)
    assert done.exit_code == status, done.output
    (run,) = double.runs.values()
    assert run["runtime_config"]["parameters"]["data"] == "0" * 32 + ".dir"
    assert run["display_name"].startswith("myxtts-generated-tiny-")
    assert f"{host}/#/runs/details/{run['run_id']}" in done.output


def test_run_says_which_failures_the_installation_does_not_retry(checkout, host, double, kube, monkeypatch):
    cloud(monkeypatch, "{}")
    monkeypatch.setattr("pipelines.cluster.OVERLAP_SECONDS", 0.1)
    monkeypatch.setattr("pipelines.cluster.SETTLED_SECONDS", 0.1)
    defaults = "spec: {templateDefaults: {retryStrategy: {retryPolicy: OnError}}}"
    kube.config_maps["kubeflow", "workflow-controller-configmap"] = {"workflowDefaults": defaults}
    double.script = ["RUNNING"]
    done = run_on_cluster(host, "--no-wait")
    assert done.exit_code == 0, done.output
    assert "warning: cluster.retries = 2, but the workflow controller's retry policy is OnError: " in done.output


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


@pytest.fixture
def pushed(monkeypatch) -> list[Path]:
    """Folders of the projects whose data were pushed as the newest ones, without a remote."""
    folders = []

    def push(project: Project) -> DataVersion:
        folders.append(project.folder)
        return DataVersion(data_hash="0" * 32 + ".dir", clips=3, seconds=7.5, languages=("en",))

    monkeypatch.setattr(Project, "push", push)
    return folders


def test_schedules_are_made_listed_and_removed_by_name(checkout, host, double, pushed):
    assert invoke(host, "schedule", "--cron", "0 0 3 * * *").exit_code == 0
    (made,) = json.loads(invoke(host, "schedule", "--json").output)
    assert (made["name"], made["cron"]) == ("myxtts-generated-tiny", "0 0 3 * * *")
    assert invoke(host, "schedule", "--remove").exit_code == 0
    assert not double.recurring
    assert pushed == [checkout]
    with pytest.raises(RunError, match="there is no schedule"):
        invoke(host, "schedule", "--remove")


WORKFLOW = "myxtts-training-abcde"


def training(host, double, kube, pipeline, run_arguments):
    """Starts a run whose step `train` waits for a TrainJob."""
    double.script = ["RUNNING"]
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    kube.pods = [argo_names.step_pod(run.id, WORKFLOW, "train", 0, "Running")]
    kube.jobs["myxtts-1"] = {"metadata": {"name": "myxtts-1", "labels": {"pipeline/runid": run.id}}}
    return run


def test_cancelling_ends_the_run_its_trainjobs_and_its_pods(
    checkout, host, double, kube, pipeline, run_arguments, monkeypatch
):
    run = training(host, double, kube, pipeline, run_arguments)
    waits = []

    def ended(seconds):
        waits.append(seconds)
        kube.pods[0]["status"]["phase"] = "Failed"

    monkeypatch.setattr(run_pods.wait_until_stopped, "__defaults__", (ended,))
    done = invoke(host, "cancel", run.id)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"cancelling {run.id}",
        "deleted TrainJob myxtts-1",
        "all its pods have ended",
    ]
    assert double.runs[run.id]["state"] == "CANCELING"
    assert not kube.jobs
    assert waits
    assert invoke(host, "cancel").exit_code == 2  # nobody's run is ended by leaving out its name


def test_a_cancelled_run_is_shown_as_cancelled_without_a_reason(checkout, host, double, kube, pipeline, run_arguments):
    double.reports_canceling = False
    run = training(host, double, kube, pipeline, run_arguments)
    kube.pods.clear()
    assert invoke(host, "cancel", run.id).exit_code == 0
    done = invoke(host, "status", run.id, "--json")
    assert done.exit_code == 1
    shown = json.loads(done.stdout)
    assert (shown["state"], shown["error"]) == ("CANCELED", "")
    assert "has ended: CANCELED" in invoke(host, "cancel", run.id).output


def test_pods_that_keep_running_are_a_finding(checkout, host, double, kube, pipeline, run_arguments, monkeypatch):
    run = training(host, double, kube, pipeline, run_arguments)
    monkeypatch.setattr(run_pods, "STOP_SECONDS", 0.0)
    done = invoke(host, "cancel", run.id)
    assert done.exit_code == 1
    assert f"still running in team: {kube.pods[0]['metadata']['name']}" in done.output


def test_without_access_to_kubernetes_the_command_for_it_is_printed(checkout, host, double, pipeline, run_arguments):
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    done = invoke(host, "cancel", run.id)
    assert done.exit_code == 1
    assert f"kubectl -n team delete trainjobs -l pipeline/runid={run.id}" in done.output
    assert double.runs[run.id]["state"] == "CANCELING"


@pytest.mark.parametrize("readable", [True, False])
def test_a_failed_run_says_why(checkout, host, double, kube, pipeline, run_arguments, readable):
    """The server reports only that the run failed; the reason is in the log of the failed step."""
    double.script, double.attempts = ["RUNNING", "FAILED"], {"train": 2}
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    cluster.wait(run.id)
    line = '::step:: {"step": "train", "state": "failed", "error": "the loss is not finite"}\n'
    if readable:
        kube.pods = [argo_names.step_pod(run.id, WORKFLOW, "train", attempt, "Failed", line) for attempt in (0, 1)]
    done = invoke(host, "status", run.id)
    assert done.exit_code == 1
    assert "train            failed (attempt 2)" in done.output
    reason = "the loss is not finite" if readable else f"`myxtts pipeline logs {run.id} --target cluster --step train`"
    assert f"error: step train failed in 2 attempts: {reason}" in done.output


def test_logs_are_those_of_the_step(checkout, host, double, kube, pipeline, run_arguments):
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    kube.pods = [argo_names.step_pod(run.id, WORKFLOW, step, log=f"of {step}\n") for step in ("train", "evaluate")]
    assert invoke(host, "logs", run.id, "--step", "evaluate").output == "evaluate  of evaluate\n"


def test_scheduled_runs_use_the_newest_data_and_the_page_suggests_them(checkout, host, double, pushed):
    """Data that is pushed after the schedule was made is used: the step `configure` looks it up when a run starts."""
    assert invoke(host, "schedule", "--cron", "@daily", "--set", "training.max_steps=7").exit_code == 0
    (made,) = double.recurring.values()
    parameters = made["runtime_config"]["parameters"]
    assert (parameters["data"], parameters["max_steps"]) == ("latest", "7")
    assert (parameters["remote"], parameters["corpus"]) == ("s3://data/dvc", "generated")
    (text,) = set(double.specs.values())
    suggested = next(yaml.safe_load_all(text))["root"]["inputDefinitions"]["parameters"]
    assert (suggested["data"]["defaultValue"], suggested["max_steps"]["defaultValue"]) == ("latest", "")
    assert suggested["remote"]["defaultValue"] == "s3://data/dvc"


def test_settings_of_one_run_make_no_other_version_of_the_pipeline(checkout, host, double, pushed):
    for steps in (7, 8):
        invoke(host, "schedule", "--cron", "@daily", "--set", f"training.max_steps={steps}")
    assert len(set(double.specs.values())) == 1


def test_under_force_no_step_is_answered_from_the_cache(checkout, host, double, monkeypatch):
    cloud(monkeypatch, "{}")
    monkeypatch.setattr("pipelines.cluster.OVERLAP_SECONDS", 0.1)
    monkeypatch.setattr("pipelines.cluster.SETTLED_SECONDS", 0.1)
    for force in ([], ["--force"]):
        assert run_on_cluster(host, "--no-wait", *force).exit_code == 0
    cached = set()
    for run in double.runs.values():
        text = double.specs[run["pipeline_version_reference"]["pipeline_version_id"]]
        tasks = next(yaml.safe_load_all(text))["root"]["dag"]["tasks"].values()
        cached.add(any(task["cachingOptions"].get("enableCache") for task in tasks))
    assert cached == {True, False}


def test_containers_are_compiled_for_without_an_engine(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    monkeypatch.chdir(tmp_path)
    options = ["--target", "docker", "--set", "docker.tag=v7"]
    done = CliRunner().invoke(pipeline_group, ["compile", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    executors = next(yaml.safe_load_all(done.output))["deploymentSpec"]["executors"]
    images = {item["container"]["image"] for item in executors.values()}
    assert images == {"myxtts-python-data:v7", "myxtts-python-train:v7"}


def test_the_next_times_of_a_schedule_are_printed_before_it_is_made(checkout, host, double, pushed):
    done = invoke(host, "schedule", "--cron", "0 0 3 * * *")
    times = [line.strip() for line in done.stderr.splitlines() if line.startswith("  ")]
    assert len(times) == 3
    assert all(time.endswith("03:00:00") for time in times)
    with pytest.raises(CronError, match="5 fields"):
        invoke(host, "schedule", "--cron", "0 3 * * *")


def test_objects_for_a_gitops_repository_are_written(checkout, host, tmp_path):
    output = tmp_path / "objects.yaml"
    assert invoke(host, "compile", "--format", "kubernetes", "--output", str(output)).exit_code == 0
    kinds = [item["kind"] for item in yaml.safe_load_all(output.read_text())]
    assert kinds == ["Pipeline", "PipelineVersion"]
