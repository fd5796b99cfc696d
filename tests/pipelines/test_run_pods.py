"""Pods and TrainJobs of a run over the Kubernetes API: logs, reasons of failures, and stopping after a termination."""

import json
import re

import argo_names
import pytest

from components.kube import KubeError
from pipelines import run_pods
from pipelines.run_pods import delete_trainjobs, failure_reason, pod_logs, wait_until_stopped

WORKFLOW = "myxtts-training-abcde"


def event(state: str, **details) -> str:
    return f"::step:: {json.dumps({'step': 'train', 'state': state, **details})}\n"


def pod(step: str, attempt: int = 0, phase: str = "Succeeded", log: str = "", run: str = "run-1") -> dict:
    return argo_names.step_pod(run, WORKFLOW, step, attempt, phase, log)


def test_a_pods_name_says_nothing_about_its_step():
    """The workflow's name contains `training`, so the name of every pod contains `train`."""
    name = pod("evaluate")["metadata"]["name"]
    assert "evaluate" not in name
    assert "train" in name


def test_logs_are_those_of_the_steps_pods_without_drivers(kube):
    kube.pods = [pod("train", log="one\ntwo\n"), argo_names.driver_pod("run-1", WORKFLOW, "train")]
    kube.pods += [pod("finetune-vocoder", log="three\n"), pod("train", log="other run\n", run="run-2")]
    assert list(pod_logs("team", "run-1")) == [("train", "one"), ("train", "two"), ("finetune_vocoder", "three")]


@pytest.mark.parametrize("spelling", ["finetune_vocoder", "finetune-vocoder"])
def test_one_steps_log_is_only_its_own(kube, spelling):
    kube.pods = [pod("train", log="one\n"), pod("finetune-vocoder", log="three\n")]
    assert list(pod_logs("team", "run-1", spelling)) == [("finetune_vocoder", "three")]
    assert list(pod_logs("team", "run-1", "train")) == [("train", "one")]


def test_lines_of_later_attempts_are_labeled(kube):
    kube.pods = [pod("train", 0, "Failed", "first\n"), pod("train", 1, "Succeeded", "second\n")]
    assert list(pod_logs("team", "run-1")) == [("train", "first"), ("train(2)", "second")]


@pytest.mark.parametrize(("namespace", "step"), [("elsewhere", ""), ("team", "gate")])
def test_a_step_without_pods_is_named(kube, namespace, step):
    kube.pods = [pod("train")]
    with pytest.raises(KubeError, match=f"{namespace} has no pods of run run-1"):
        list(pod_logs(namespace, "run-1", step))


def test_the_reason_of_a_failure_is_what_the_last_attempt_recorded(kube):
    lines = event("started") + "Traceback\n" + event("failed", seconds=3, error="the corpus has one speaker; add one")
    kube.pods = [pod("train", 0, "Failed", event("failed", error="first")), pod("train", 1, "Failed", lines + "end\n")]
    assert failure_reason("team", "run-1", "train") == "the corpus has one speaker; add one"


@pytest.mark.parametrize(
    ("log", "reason"),
    [("", ""), (event("started"), ""), (event("interrupted", seconds=2), "interrupted: ")],
)
def test_a_step_that_recorded_no_failure_gives_no_reason_of_its_own(kube, log, reason):
    kube.pods = [pod("train", 0, "Failed", log)]
    assert failure_reason("team", "run-1", "train").startswith(reason)
    assert bool(failure_reason("team", "run-1", "train")) == bool(reason)
    assert failure_reason("team", "run-1", "evaluate") == ""


def trainjob(name: str, run: str) -> dict:
    return {"metadata": {"name": name, "labels": {"pipeline/runid": run}}, "looks": 0}


def test_a_runs_trainjobs_are_deleted_and_no_others(kube):
    kube.jobs = {name: trainjob(name, run) for name, run in (("a", "run-1"), ("b", "run-2"), ("c", "run-1"))}
    assert delete_trainjobs("team", "run-1") == ["a", "c"]
    assert list(kube.jobs) == ["b"]
    assert delete_trainjobs("team", "run-1") == []


def test_waiting_ends_when_pods_of_steps_and_workers_have_ended(kube):
    """Pods of a terminated run exist until its time to live; their phase decides whether they have ended."""
    kube.pods = [pod("preprocess"), pod("train", 0, "Running")]
    kube.jobs = {"a": trainjob("a", "run-1")}
    looks = []

    def sleep(seconds):
        looks.append(len(looks))
        if len(looks) == 2:
            kube.pods[1]["status"]["phase"] = "Failed"
        if len(looks) == 4:
            kube.jobs.clear()

    assert wait_until_stopped("team", "run-1", ["a"], sleep) == []
    assert len(looks) == 4


def test_pods_that_do_not_end_are_named(kube, monkeypatch):
    monkeypatch.setattr(run_pods, "STOP_SECONDS", 3)
    kube.pods = [pod("train", 0, "Running")]
    assert wait_until_stopped("team", "run-1", [], lambda seconds: None) == [kube.pods[0]["metadata"]["name"]]


def test_a_kubernetes_api_that_does_not_answer_is_one_line(kube, tmp_path, monkeypatch):
    from kubernetes.config import kube_config

    config = (tmp_path / "kubeconfig").read_text()
    (tmp_path / "away").write_text(re.sub(r"http://127.0.0.1:\d+", "http://127.0.0.1:1", config))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "away"))
    for ask in (lambda: delete_trainjobs("team", "run-1"), lambda: failure_reason("team", "run-1", "train")):
        with pytest.raises(KubeError, match="the Kubernetes API does not answer") as caught:
            ask()
        assert "\n" not in str(caught.value)
