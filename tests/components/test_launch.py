"""Launchers: training in this process, in several processes, and on several nodes, with the same command and answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kube_double import KubeDouble, UnknownField, check_trainjob

from components import launch as launching
from components import trainjob
from components.contracts import StepError
from components.launch import VARIABLE, default_processes, launch, worker_command
from components.trainjob import TrainJobError, job_name, render, run_trainjob
from model.config.resolution import resolve
from pipelines.profiles import WORKER_KEYS

WORKER = """
import os
from components.launch import worker_main
from components.contracts import StepError

def work(request):
    if request["value"] < 0:
        raise StepError("value is negative; give another")
    if request["value"] == 0:
        os._exit(0)  # as a worker that is killed by a library it loads
    world = int(os.environ.get("WORLD_SIZE", "1"))
    with open(request["folder"] + f"/rank-{os.environ.get('RANK', '0')}", "w") as file:
        file.write(str(world))
    return {"value": request["value"] * 2, "world": world}

if __name__ == "__main__":
    worker_main(work)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch) -> str:
    """Name of a module that replaces training."""
    (tmp_path / "standin_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    yield "standin_worker"
    sys.modules.pop("standin_worker", None)


def target(**changes) -> str:
    overrides = {f"launch.{key}": value for key, value in changes.items()}
    return json.dumps({"launch": resolve(overrides=overrides).config.launch.model_dump()})


def test_inline_is_a_plain_call(worker, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert launch(worker, {"value": 3, "folder": str(tmp_path)}, tmp_path)["value"] == 6


def test_torchrun_starts_as_many_processes_as_there_are_cores_and_the_first_answers(worker, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, target(launcher="torchrun", processes=0))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"num_physical_cores": 16})
    answer = launch(worker, {"value": 3, "folder": str(tmp_path)}, tmp_path)
    assert answer == {"value": 6, "world": 2}
    assert sorted(path.name for path in tmp_path.glob("rank-*")) == ["rank-0", "rank-1"]


def test_workers_that_answered_and_do_not_end_are_ended(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "GRACE_SECONDS", 0.5)
    answer = tmp_path / "answer.json"
    answer.write_text("{}", "utf-8")
    stuck = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    assert launching._wait(stuck, answer) == 0
    assert stuck.poll() is not None


def test_without_a_number_there_is_a_process_for_each_gpu_or_two_for_two_cores(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"num_physical_cores": 16})
    assert default_processes() == 2
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"num_physical_cores": 1})
    assert default_processes() == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert default_processes() == 4


@pytest.fixture
def alone(monkeypatch) -> None:
    """Workers of torchrun are single processes, without torchrun itself, which takes seconds to start."""
    monkeypatch.setenv(VARIABLE, target(launcher="torchrun", processes=1))
    monkeypatch.setattr(launching, "worker_command", lambda module, request: ["python", "-m", module, str(request)])


def test_a_workers_own_error_is_the_steps_error(worker, tmp_path, monkeypatch):
    """With the number of processes that is asked for."""
    monkeypatch.setenv(VARIABLE, target(launcher="torchrun", processes=1))
    with pytest.raises(StepError, match="value is negative; give another"):
        launch(worker, {"value": -1, "folder": str(tmp_path)}, tmp_path)


def test_the_answer_of_an_earlier_try_is_never_this_ones(alone, worker, tmp_path):
    (tmp_path / "answer.json").write_text('{"value": 99, "world": 1}', "utf-8")
    with pytest.raises(StepError, match=r"no worker of .* answered"):
        launch(worker, {"value": 0, "folder": str(tmp_path)}, tmp_path)


CLUSTER = {
    "model_size": "big",
    "cluster.node_selector": ["accelerator=h100"],
    "cluster.tolerations": ["nvidia.com/gpu:NoSchedule", "pool=train:NoExecute"],
    "cluster.queue": "training",
    "cluster.image_pull_secret": "registry",
    "launch.launcher": "trainjob",
    "launch.nodes": 2,
    "launch.processes": 1,
}
POD = {
    "MYXTTS_IMAGE": "registry.example/train@sha256:" + "0" * 64,
    "MYXTTS_STATE": "/state",
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "KFP_RUN_ID": "run-1",
    "KFP_POD_NAME": "train-pod",
    "KFP_POD_UID": "uid-1",
    "AWS_SECRET_ACCESS_KEY": "hunter2hunter2",
}


def launch_settings(**changes) -> dict:
    config = resolve(overrides={**CLUSTER, **changes}).config
    return {"launch": config.launch.model_dump(), "cluster": config.cluster.model_dump(include=set(WORKER_KEYS))}


def rendered(**changes) -> dict:
    return render(
        "myxtts-1", worker_command("components.train.work", Path("/state/r.json")), launch_settings(**changes), POD
    )


@pytest.mark.parametrize("changes", [{}, {"model_size": "tiny"}, {"cluster.s3_secret": "", "cluster.queue": ""}])
def test_the_trainjob_is_one_that_kubeflow_trainer_defines(changes):
    check_trainjob(rendered(**changes))


def test_the_fields_of_earlier_releases_are_refused():
    body = rendered()
    body["spec"]["podTemplateOverrides"] = []
    with pytest.raises(UnknownField, match="podTemplateOverrides"):
        check_trainjob(body)
    body = rendered()
    pod(body)["hostNetwork"] = True
    with pytest.raises(UnknownField, match="hostNetwork"):
        check_trainjob(body)


def pod(body: dict) -> dict:
    template = body["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]
    return template["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_every_node_runs_the_command_that_torchrun_runs_here():
    body = rendered()
    assert body["spec"]["trainer"]["command"] == worker_command("components.train.work", Path("/state/r.json"))
    assert (body["spec"]["trainer"]["numNodes"], body["spec"]["trainer"]["numProcPerNode"]) == (2, 1)


def test_the_trainjob_refers_to_the_runtime_of_the_settings():
    assert rendered()["spec"]["runtimeRef"]["name"] == "torch-distributed"
    assert rendered(**{"launch.runtime": "torch-ours"})["spec"]["runtimeRef"]["name"] == "torch-ours"


def test_the_pods_of_a_trainjob_get_what_the_settings_say():
    body = rendered()
    trainer, spec = body["spec"]["trainer"], pod(body)
    assert trainer["image"] == POD["MYXTTS_IMAGE"]
    assert trainer["resourcesPerNode"]["limits"] == {"memory": "96Gi", "nvidia.com/gpu": "1"}
    assert spec["nodeSelector"] == {"accelerator": "h100"}
    assert [item["operator"] for item in spec["tolerations"]] == ["Exists", "Equal"]
    assert {volume["name"] for volume in spec["volumes"]} == {"state", "shm", "tmp"}
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert body["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert body["spec"]["activeDeadlineSeconds"] == resolve().config.cluster.step_timeout_seconds


def test_the_pods_of_a_trainjob_meet_the_restricted_pod_security_standard():
    spec = pod(rendered())
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_secrets_are_handed_on_by_name():
    body = rendered(**{"cluster.tracking_secret": "login"})
    assert "hunter2" not in json.dumps(body)
    found = {
        item["name"]: item["valueFrom"]["secretKeyRef"]["name"]
        for item in body["spec"]["trainer"]["env"]
        if "valueFrom" in item
    }
    mlflow = dict.fromkeys(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"), "login")
    assert found == {**dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "myxtts-s3"), **mlflow}


def test_a_jobs_name_is_that_of_its_run_and_training():
    assert job_name("run", "key") == job_name("run", "key")
    assert len({job_name("run", "key"), job_name("run-2", "key"), job_name("run", "key-2")}) == 3
    assert len(job_name("run", "key")) < 63


@pytest.fixture
def kube(tmp_path, monkeypatch):
    double = KubeDouble("myxtts")
    for key, value in POD.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with double.serving(tmp_path) as kubeconfig:
        from kubernetes.config import kube_config

        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        yield double


@pytest.fixture
def submit(kube, tmp_path):
    """Returns a function that runs a TrainJob, calls its argument between polls, and returns the status."""

    def call(sleep=lambda seconds: None) -> int:
        return run_trainjob(["python"], "key", launch_settings(), tmp_path / "answer.json", sleep)

    return call


@pytest.mark.parametrize(("script", "status"), [(["", "", "Complete"], 0), (["", "Failed"], 1)])
def test_a_trainjob_is_submitted_and_waited_for(kube, script, status, submit):
    kube.script = script
    assert submit() == status
    assert kube.created == 1


def test_the_first_nodes_lines_are_passed_on_once(kube, capsys, submit):
    kube.script = ["", "", "Complete"]
    lines = iter(["2026-01-01T00:00:01.1Z one", "2026-01-01T00:00:02.1Z two"])

    def sleep(seconds):
        kube.logs.append(next(lines))

    submit(sleep)
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_step_tried_again_adopts_the_job_that_still_trains(kube, monkeypatch, submit):
    kube.script = ["", "", "", "Complete"]
    body = render(job_name("run-1", "key"), ["python"], launch_settings(), POD)
    kube.jobs[body["metadata"]["name"]] = {**body, "looks": 0}
    monkeypatch.setenv("KFP_POD_UID", "uid-2")
    assert submit() == 0
    assert kube.created == 0
    owners = kube.jobs[body["metadata"]["name"]]["metadata"]["ownerReferences"]
    assert [item["uid"] for item in owners] == ["uid-1", "uid-2"]


def test_a_job_that_failed_in_an_earlier_try_is_replaced(kube, submit):
    name = job_name("run-1", "key")
    failed = {"conditions": [{"type": "Failed", "status": "True"}]}
    kube.jobs[name] = {"metadata": {"name": name}, "looks": 0, "status": failed}
    assert submit() == 0
    assert (kube.deleted, kube.created) == ([name], 1)


@pytest.fixture
def trainjob_target(kube, monkeypatch):
    monkeypatch.setenv(VARIABLE, json.dumps(launch_settings()))


def existing_job(kube, key: str, *conditions: str) -> None:
    """Adds a job of this run that an earlier attempt of the step submitted."""
    name = job_name("run-1", key)
    status = {"conditions": [{"type": item, "status": "True"} for item in conditions]}
    kube.jobs[name] = {"metadata": {"name": name}, "looks": 0, "status": status}


def test_the_answer_of_a_job_that_completed_without_its_step_is_read(kube, trainjob_target, tmp_path):
    """The step's pod was evicted, the job completed, and the step is tried again."""
    existing_job(kube, tmp_path.name, "Complete")
    (tmp_path / "answer.json").write_text('{"value": 6}', "utf-8")
    assert launch("module", {"value": 3}, tmp_path) == {"value": 6}
    assert kube.created == 0


@pytest.mark.parametrize("earlier", [(), ("Failed",)])
def test_a_new_job_does_not_answer_with_an_earlier_jobs_answer(earlier, kube, trainjob_target, tmp_path):
    if earlier:
        existing_job(kube, tmp_path.name, *earlier)
    kube.script = ["Complete"]
    (tmp_path / "answer.json").write_text('{"value": 99}', "utf-8")
    with pytest.raises(StepError, match=r"no worker of .* answered"):
        launch("module", {"value": 3}, tmp_path)
    assert kube.created == 1


def test_an_interrupted_step_takes_its_job_with_it(kube, submit):
    kube.script = [""]

    def interrupt(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(interrupt)
    assert kube.deleted == [job_name("run-1", "key")]


def test_a_job_that_is_removed_from_outside_is_an_error(kube, submit):
    kube.script = [""]
    with pytest.raises(TrainJobError, match="was removed"):
        submit(lambda seconds: kube.jobs.clear())


def test_a_missing_role_is_named_with_its_fix(kube, submit):
    kube.forbidden = True
    with pytest.raises(TrainJobError, match=r"refused in myxtts: 403 .*runner\.yaml"):
        submit()


def test_the_launcher_gets_the_settings_of_pods_that_it_reads():
    source = Path(trainjob.__file__).read_text("utf-8")
    read = {name for name in WORKER_KEYS if f'cluster["{name}"]' in source}
    assert read == set(WORKER_KEYS)
