"""Training on several nodes: the training step submits a TrainJob of Kubeflow Trainer and waits for it."""

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.contracts import StepError
from components.kube import api_client, reason

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
MANAGER = "myxtts.pipelines/train"
NODE = "node"
"""Name of the replicated job and of its container in the runtimes of Kubeflow Trainer."""
STATE_MOUNT = "/state"
IMAGE_USER = 10001
"""User and group of the images (`infra/docker/Dockerfile`)."""
PASSED_ON = ("MYXTTS_STATE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
S3_VARIABLES = {"AWS_ACCESS_KEY_ID": "access-key", "AWS_SECRET_ACCESS_KEY": "secret-key"}
TRACKING_VARIABLES = {
    "MLFLOW_TRACKING_USERNAME": "username",
    "MLFLOW_TRACKING_PASSWORD": "password",
    "MLFLOW_TRACKING_TOKEN": "token",
}
POLL_SECONDS = 10.0

logger = logging.getLogger(__name__)


class TrainJobError(StepError):
    """A TrainJob could not be submitted, was lost or failed; the message says which and why."""


def render(
    name: str, command: list[str], settings: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the TrainJob as a Kubernetes object.

    Args:
        name: Name of the object.
        command: Command of every node.
        settings: Sections `launch` and `cluster`, as the target gave them to the step.
        environment: Environment of the step: image, pod and the variables that are passed on to the workers.
    """
    launch, cluster = settings["launch"], settings["cluster"]
    amounts = {"cpu": cluster["train_cpu"], "memory": cluster["train_memory"]}
    limits = {"memory": cluster["train_memory"]}
    if cluster["accelerators"]:
        limits[cluster["accelerator"]] = amounts[cluster["accelerator"]] = str(cluster["accelerators"])
    values: list[dict[str, Any]] = [{"name": key, "value": environment[key]} for key in PASSED_ON if key in environment]
    values += _from_secret(cluster["s3_secret"], S3_VARIABLES)
    values += _from_secret(cluster["tracking_secret"], TRACKING_VARIABLES, optional=True)
    labels = {"app.kubernetes.io/part-of": "myxtts", "pipeline/runid": environment.get("KFP_RUN_ID", "")}
    if cluster["queue"]:
        labels["kueue.x-k8s.io/queue-name"] = cluster["queue"]
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": cluster["namespace"],
        "labels": {key: value for key, value in labels.items() if value},
    }
    if owner := _owner(environment):
        metadata["ownerReferences"] = [owner]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"name": launch["runtime"], "kind": "ClusterTrainingRuntime", "apiGroup": GROUP},
            "activeDeadlineSeconds": cluster["step_timeout_seconds"],
            "trainer": {
                "image": environment["MYXTTS_IMAGE"],
                "command": command,
                "env": values,
                "numNodes": launch["nodes"],
                "numProcPerNode": launch["processes"],
                "resourcesPerNode": {"requests": amounts, "limits": limits},
            },
            "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": {"template": _patch(cluster)}}],
        },
    }


def _from_secret(secret: str, variables: Mapping[str, str], optional: bool = False) -> list[dict[str, Any]]:
    """Returns environment variables with values from the keys of a secret; [] if the secret has no name."""
    extra = {"optional": True} if optional else {}
    return [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, **extra}}}
        for variable, key in variables.items()
        if secret
    ]


def _patch(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the patch of the pod template: volumes, scheduling and identity, for which there are no other fields."""
    pod: dict[str, Any] = {
        "serviceAccountName": cluster["service_account"],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": IMAGE_USER,
            "runAsGroup": IMAGE_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "state", "persistentVolumeClaim": {"claimName": cluster["state_volume"]}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": cluster["shared_memory"]}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "containers": [
            {
                "name": NODE,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": [
                    {"name": "state", "mountPath": STATE_MOUNT},
                    {"name": "shm", "mountPath": "/dev/shm"},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
    }
    if cluster["node_selector"]:
        pod["nodeSelector"] = dict(label.split("=") for label in cluster["node_selector"])
    if cluster["tolerations"]:
        pod["tolerations"] = [parse_toleration(item) for item in cluster["tolerations"]]
    if cluster["image_pull_secret"]:
        pod["imagePullSecrets"] = [{"name": cluster["image_pull_secret"]}]
    return {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}]}}


def parse_toleration(text: str) -> dict[str, str]:
    """Returns the fields of the toleration `key=value:effect` or `key:effect`."""
    taint, _, effect = text.rpartition(":")
    key, given, value = taint.partition("=")
    operator = {"operator": "Equal", "value": value} if given else {"operator": "Exists"}
    return {"key": key, "effect": effect, **operator}


def run_trainjob(
    command: list[str],
    key: str,
    settings: Mapping[str, Any],
    answer: Path,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Submits the TrainJob of a training, or adopts that of an earlier attempt; waits for it and prints its log.

    Args:
        command: Command of every node.
        key: Identifies the training; with the run's id it gives the name of the job.
        settings: Sections `launch` and `cluster`.
        answer: File that the workers write their answer to. Removed before a job is submitted, so that the answer of
            an earlier job is not read; kept when a job is adopted, since it may have answered already.
        sleep: Waits a number of seconds between two polls.

    Returns:
        0 if the job completed, 1 if it failed.

    Raises:
        TrainJobError: the job could not be submitted, or disappeared.
        KeyboardInterrupt: the step was interrupted; the job has been deleted.
    """
    name = job_name(os.environ.get("KFP_RUN_ID", ""), key)
    body = render(name, command, settings, os.environ)
    job = _Job(name, body["metadata"]["namespace"])
    try:
        job.submit_or_adopt(body, answer, sleep)
        while True:
            job.print_new_log()
            if (ended := job.ended()) is not None:
                job.print_new_log()
                return ended
            sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        job.delete()
        raise


def job_name(run_id: str, key: str) -> str:
    """Returns the job's name, a hash of run and training: a retried step finds its job by it."""
    return f"myxtts-{hashlib.sha256(f'{run_id}/{key}'.encode()).hexdigest()[:16]}"


def _owner(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns an owner reference to the step's pod, with which the job is removed; None outside of a pod."""
    if "KFP_POD_NAME" not in environment or "KFP_POD_UID" not in environment:
        return None
    return {"apiVersion": "v1", "kind": "Pod", "name": environment["KFP_POD_NAME"], "uid": environment["KFP_POD_UID"]}


class _Job:
    """A TrainJob in the cluster."""

    def __init__(self, name: str, namespace: str) -> None:
        from kubernetes import client

        self._api_error = client.ApiException
        connection = api_client()
        self._objects = client.CustomObjectsApi(connection)
        self._core = client.CoreV1Api(connection)
        self._where = (GROUP, VERSION, namespace, PLURAL)
        self._name, self._namespace = name, namespace
        self._seen = ""

    def submit_or_adopt(self, body: Mapping[str, Any], answer: Path, sleep: Callable[[float], None]) -> None:
        known = self._get()
        if known is not None and _ended(known) == 1:
            logger.info("TrainJob %s failed in an earlier attempt; it is replaced", self._name)
            self.delete()
            while self._get() is not None:
                sleep(POLL_SECONDS / 5)
            known = None
        if known is not None:
            logger.info("TrainJob %s exists already; waiting for it", self._name)
            self._own(known, body["metadata"].get("ownerReferences", []))
            return
        answer.unlink(missing_ok=True)
        try:
            self._objects.create_namespaced_custom_object(*self._where, dict(body))
        except self._api_error as error:
            raise TrainJobError(
                f"the TrainJob {self._name} was refused in {self._namespace}: {reason(error)}; check that Kubeflow "
                "Trainer is installed and the service account may create trainjobs (infra/kubernetes/base/runner.yaml)"
            ) from error
        logger.info("TrainJob %s submitted", self._name)

    def _own(self, known: Mapping[str, Any], owners: list[dict[str, Any]]) -> None:
        """Makes the pod of this attempt an owner too: removal of the earlier pod must not remove the job."""
        before = known["metadata"].get("ownerReferences", [])
        added = [item for item in owners if item["uid"] not in {owner["uid"] for owner in before}]
        if added:
            change = {"metadata": {"ownerReferences": [*before, *added]}}
            self._objects.patch_namespaced_custom_object(*self._where, self._name, change)

    def ended(self) -> int | None:
        """Returns 0 if the job completed, 1 if it failed, `None` while it runs.

        Raises:
            TrainJobError: the job no longer exists.
        """
        job = self._get()
        if job is None:
            raise TrainJobError(f"TrainJob {self._name} was removed from {self._namespace} while it ran")
        return _ended(job)

    def delete(self) -> None:
        """Deletes the job if it exists."""
        try:
            self._objects.delete_namespaced_custom_object(*self._where, self._name)
        except self._api_error as error:
            if error.status != 404:
                raise TrainJobError(f"cannot delete TrainJob {self._name}: {reason(error)}") from error

    def print_new_log(self) -> None:
        """Prints the new log lines of the first node, if its pod has started."""
        selector = f"jobset.sigs.k8s.io/jobset-name={self._name},batch.kubernetes.io/job-completion-index=0"
        try:
            for pod in self._core.list_namespaced_pod(self._namespace, label_selector=selector).items:
                text = self._core.read_namespaced_pod_log(
                    pod.metadata.name, self._namespace, container=NODE, timestamps=True
                )
                self._print_new(text)
        except self._api_error as error:
            logger.debug("no log of %s yet: %s", self._name, reason(error))

    def _print_new(self, text: str) -> None:
        for line in text.splitlines():
            stamp, _, message = line.partition(" ")
            if stamp > self._seen:
                self._seen = stamp
                sys.stdout.write(f"{message}\n")  # the step's output, where the events of workers are read
        sys.stdout.flush()

    def _get(self) -> dict[str, Any] | None:
        try:
            return self._objects.get_namespaced_custom_object(*self._where, self._name)
        except self._api_error as error:
            if error.status == 404:
                return None
            raise TrainJobError(f"cannot read TrainJob {self._name}: {reason(error)}") from error


def _ended(job: Mapping[str, Any]) -> int | None:
    for condition in job.get("status", {}).get("conditions", []):
        if condition.get("status") == "True" and condition["type"] in ("Complete", "Failed"):
            if condition["type"] == "Failed":
                logger.error("TrainJob failed: %s %s", condition.get("reason", ""), condition.get("message", ""))
            return 0 if condition["type"] == "Complete" else 1
    return None
