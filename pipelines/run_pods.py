"""The pods of a cluster's run, over the Kubernetes API: their logs, and stopping them after a termination.

Kubeflow Pipelines has no call for the logs of a step. When it terminates a run, it stops the run's pods but keeps them
until their time to live, so that the objects that they own are not deleted: a TrainJob would continue training.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.kube import TIMEOUT, KubeError, api_client, asking_kubernetes
from components.runner import EVENT
from components.trainjob import GROUP, PLURAL, VERSION
from pipelines.argo_nodes import step_of_pod

CONTAINER = "main"
ENDED = ("Succeeded", "Failed")
"""Phases of pods that hold no resources any more."""
TRAINJOB_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Label of a TrainJob's pods: Kubeflow Trainer gives the job set the name of the TrainJob."""
POLL_SECONDS = 1.0
STOP_SECONDS = 120.0
"""Time limit for pods to end. Kubernetes kills a pod 30 s after SIGTERM; on an unresponsive node it takes longer."""


@dataclass(frozen=True)
class StepPod:
    """A pod in which a step runs or ran.

    Attributes:
        name: Name of the pod.
        step: Name of the step.
        attempt: From 0; a retried step gets another pod.
    """

    name: str
    step: str
    attempt: int

    @property
    def label(self) -> str:
        """Name of the step, with the number of the attempt if it is not the first."""
        return self.step + (f"({self.attempt + 1})" if self.attempt else "")


def pod_logs(namespace: str, run_id: str, step: str = "") -> Iterator[tuple[str, str]]:
    """Yields the log lines of a run as (step with its attempt, line), pod by pod in the order in which they started.

    Args:
        namespace: Namespace of the run's pods.
        run_id: The run.
        step: Yield only the lines of this step; '' for all steps.

    Raises:
        KubeError: the pods cannot be listed or read, there are none, or they have been deleted.
    """
    core = _core()
    wanted = step.replace("-", "_")
    chosen = [pod for pod in _step_pods(core, namespace, run_id) if wanted in ("", pod.step)]
    if not chosen:
        raise KubeError(
            f"{namespace} has no pods of run {run_id}{f' of step {step}' if step else ''}: a finished run's are "
            "deleted after a while, its steps' logs are then among the run's artifacts"
        )
    for pod in chosen:
        try:
            text = _log(core, namespace, pod)
        except KubeError as error:
            text = f"({error})"
        for line in text.splitlines():
            yield pod.label, line


def failure_reason(namespace: str, run_id: str, step: str) -> str:
    """Returns the reason that the last attempt of a step logged when it failed or was interrupted; '' if there is none.

    Raises:
        KubeError: the pods cannot be listed or read.
    """
    core = _core()
    attempts = [pod for pod in _step_pods(core, namespace, run_id) if pod.step == step]
    if not attempts:
        return ""
    text = _log(core, namespace, max(attempts, key=lambda pod: pod.attempt))
    for line in reversed(text.splitlines()):
        _, found, details = line.partition(f"{EVENT} ")
        if not found:
            continue
        event = json.loads(details)
        if event["state"] == "failed":
            return str(event.get("error", ""))
        if event["state"] == "interrupted":
            return "interrupted: the run was cancelled, or the pod was evicted"
    return ""


def _core() -> Any:
    from kubernetes import client

    return client.CoreV1Api(api_client())


def _step_pods(core: Any, namespace: str, run_id: str) -> list[StepPod]:
    """Returns the pods of a run's steps in the order in which they started, without drivers.

    Raises:
        KubeError: the pods cannot be listed.
    """
    selector = f"pipeline/runid={run_id}"
    with asking_kubernetes(f"list the pods of {run_id} in {namespace}"):
        pods = core.list_namespaced_pod(namespace, label_selector=selector, _request_timeout=TIMEOUT).items
    found = []
    for pod in sorted(pods, key=lambda item: str(item.status.start_time)):
        if (parsed := step_of_pod(pod.metadata.annotations)) is not None:
            found.append(StepPod(pod.metadata.name, *parsed))
    return found


def _log(core: Any, namespace: str, pod: StepPod) -> str:
    with asking_kubernetes(f"read the log of {pod.name}"):
        text: str = core.read_namespaced_pod_log(pod.name, namespace, container=CONTAINER, _request_timeout=TIMEOUT)
        return text


def delete_trainjobs(namespace: str, run_id: str) -> list[str]:
    """Deletes the TrainJobs of a run, selected by the label `pipeline/runid`, and returns their names.

    Raises:
        KubeError: they cannot be listed or deleted.
    """
    from kubernetes import client

    objects = client.CustomObjectsApi(api_client())
    where = (GROUP, VERSION, namespace, PLURAL)
    selector = f"pipeline/runid={run_id}"
    with asking_kubernetes(f"list the TrainJobs of {run_id} in {namespace}"):
        try:
            listed = objects.list_namespaced_custom_object(*where, label_selector=selector, _request_timeout=TIMEOUT)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return []  # no Kubeflow Trainer in this cluster
    names = [item["metadata"]["name"] for item in listed["items"]]
    for name in names:
        with asking_kubernetes(f"delete the TrainJob {name} in {namespace}"):
            try:
                objects.delete_namespaced_custom_object(*where, name, _request_timeout=TIMEOUT)
            except client.ApiException as error:
                if error.status != 404:  # its step may have deleted it meanwhile
                    raise
    return names


def wait_until_stopped(
    namespace: str, run_id: str, trainjobs: list[str], sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """Waits up to `STOP_SECONDS` until the pods of a run and its TrainJobs have ended; returns those that have not.

    Raises:
        KubeError: the pods cannot be listed.
    """
    from kubernetes import client

    core = client.CoreV1Api(api_client())
    waited = 0.0
    while (left := _alive(core, namespace, run_id, trainjobs)) and waited < STOP_SECONDS:
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    return left


def _alive(core: Any, namespace: str, run_id: str, trainjobs: list[str]) -> list[str]:
    """Returns the names of the pods of a run and its TrainJobs that have not ended."""
    names: set[str] = set()
    for selector in (f"pipeline/runid={run_id}", *(f"{TRAINJOB_LABEL}={name}" for name in trainjobs)):
        with asking_kubernetes(f"list the pods of {run_id} in {namespace}"):
            pods = core.list_namespaced_pod(namespace, label_selector=selector, _request_timeout=TIMEOUT).items
        names.update(pod.metadata.name for pod in pods if pod.status.phase not in ENDED)
    return sorted(names)
