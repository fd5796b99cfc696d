"""What the pods of a cluster's run wrote, read over the Kubernetes API: Kubeflow Pipelines has no call for it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.kube import TIMEOUT, KubeError, api_client, asking_kubernetes
from components.runner import EVENT
from pipelines.argo_nodes import step_of_pod

CONTAINER = "main"


@dataclass(frozen=True)
class StepPod:
    """A pod in which a step runs or has run.

    Attributes:
        name: Of the pod.
        step: The step's own name.
        attempt: From 0: a step that is tried again gets another pod.
    """

    name: str
    step: str
    attempt: int

    @property
    def label(self) -> str:
        """The step, with the number of its attempt from the second one on."""
        return self.step + (f"({self.attempt + 1})" if self.attempt else "")


def pod_logs(namespace: str, run_id: str, step: str = "") -> Iterator[tuple[str, str]]:
    """(step with its attempt, line) of a run, pod by pod in the order they started.

    Args:
        namespace: Where the run's pods are.
        run_id: The run.
        step: Only this step's.

    Raises:
        KubeError: the pods cannot be listed or read, or there are none (any more).
    """
    core = _core()
    wanted = step.replace("-", "_")
    chosen = [pod for pod in _step_pods(core, namespace, run_id) if wanted in ("", pod.step)]
    if not chosen:
        raise KubeError(
            f"{namespace} has no pods of run {run_id}{f' of step {step}' if step else ''}: a finished run's are "
            "removed after a while, its steps' logs are then among the run's artifacts"
        )
    for pod in chosen:
        try:
            text = _log(core, namespace, pod)
        except KubeError as error:
            text = f"({error})"
        for line in text.splitlines():
            yield pod.label, line


def failure_reason(namespace: str, run_id: str, step: str) -> str:
    """What the last attempt of a step recorded when it failed or was interrupted; empty if it recorded nothing.

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
            return event.get("error", "")
        if event["state"] == "interrupted":
            return "interrupted from outside: cancelled, or its pod was evicted"
    return ""


def _core() -> Any:
    from kubernetes import client

    return client.CoreV1Api(api_client())


def _step_pods(core: Any, namespace: str, run_id: str) -> list[StepPod]:
    """Pods of a run's steps in the order they started, without drivers.

    Raises:
        KubeError: they cannot be listed.
    """
    selector = f"pipeline/runid={run_id}"
    with asking_kubernetes(f"list the pods of {run_id} in {namespace}"):
        pods = core.list_namespaced_pod(namespace, label_selector=selector, _request_timeout=TIMEOUT).items
    found = []
    for pod in sorted(pods, key=lambda item: str(item.status.start_time)):
        if (of := step_of_pod(pod.metadata.annotations)) is not None:
            found.append(StepPod(pod.metadata.name, *of))
    return found


def _log(core: Any, namespace: str, pod: StepPod) -> str:
    with asking_kubernetes(f"read the log of {pod.name}"):
        return core.read_namespaced_pod_log(pod.name, namespace, container=CONTAINER, _request_timeout=TIMEOUT)
