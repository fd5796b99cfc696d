"""What is left to do once a run was terminated: its TrainJobs, and waiting until its pods have ended.

Kubeflow Pipelines stops a run's pods and keeps them until its time to live, so what they own is not removed: a TrainJob
would go on training.
"""

import time
from collections.abc import Callable
from typing import Any

from components.kube import TIMEOUT, api_client, asking_kubernetes
from components.trainjob import GROUP, PLURAL, VERSION

ENDED = ("Succeeded", "Failed")
"""Phases of pods that hold no resources any more."""
TRAINJOB_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Label of a TrainJob's pods; Kubeflow Trainer names the job set after the TrainJob."""
POLL_SECONDS = 1.0
STOP_SECONDS = 120.0
"""Kubernetes kills a pod 30 s after it was told to end; nodes that do not answer take longer."""


def delete_trainjobs(namespace: str, run_id: str) -> list[str]:
    """Delete the TrainJobs of a run, found by the label `pipeline/runid`; returns their names.

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
                if error.status != 404:  # its own step may have deleted it a moment before
                    raise
    return names


def wait_until_stopped(
    namespace: str, run_id: str, trainjobs: list[str], sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """Wait, at most `STOP_SECONDS`, until the pods of a run and its TrainJobs have ended; returns those that have not.

    Raises:
        KubeError: they cannot be listed.
    """
    from kubernetes import client

    core = client.CoreV1Api(api_client())
    waited = 0.0
    while (left := _alive(core, namespace, run_id, trainjobs)) and waited < STOP_SECONDS:
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    return left


def _alive(core: Any, namespace: str, run_id: str, trainjobs: list[str]) -> list[str]:
    names = set()
    for selector in (f"pipeline/runid={run_id}", *(f"{TRAINJOB_LABEL}={name}" for name in trainjobs)):
        with asking_kubernetes(f"list the pods of {run_id} in {namespace}"):
            pods = core.list_namespaced_pod(namespace, label_selector=selector, _request_timeout=TIMEOUT).items
        names.update(pod.metadata.name for pod in pods if pod.status.phase not in ENDED)
    return sorted(names)
