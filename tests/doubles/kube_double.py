"""A server for the part of the Kubernetes API that a training step uses, with Kubeflow Trainer's types.

TrainJobs are validated by the types of `kubeflow-trainer-api`; unknown fields, which those types accept, are refused.
"""

import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union

import http_double
import yaml
from kubeflow_trainer_api import models
from pydantic import BaseModel

Quantity = models.IoK8sApimachineryPkgApiResourceQuantity


class UnknownField(ValueError):
    pass


def check_trainjob(body: dict) -> None:
    """Refuses a TrainJob with unknown fields or values of the wrong type.

    Raises:
        UnknownField, pydantic.ValidationError.
    """
    models.TrainerV1alpha1TrainJob.model_validate(_typed(body, models.TrainerV1alpha1TrainJob, "TrainJob"))


def _typed(value: Any, annotation: Any, where: str) -> Any:
    """Returns a value with its quantities as the generated types require them; refuses unknown fields."""
    if annotation is Quantity:
        return Quantity(value)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and isinstance(value, dict):
        fields = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
        if unknown := set(value) - set(fields):
            raise UnknownField(f"{where}: unknown field {', '.join(sorted(unknown))}")
        return {key: _typed(inner, fields[key], f"{where}.{key}") for key, inner in value.items()}
    kinds = typing.get_args(annotation)
    if typing.get_origin(annotation) is Union:
        return _typed(value, kinds[0], where)
    if typing.get_origin(annotation) is list and isinstance(value, list):
        return [_typed(item, kinds[0], f"{where}[{index}]") for index, item in enumerate(value)]
    if typing.get_origin(annotation) is dict and isinstance(value, dict):
        return {key: _typed(inner, kinds[1], f"{where}.{key}") for key, inner in value.items()}
    return value


class KubeDouble:
    """Jobs, pods and logs of one namespace.

    Attributes:
        namespace: Namespace of the objects; others are empty.
        jobs: TrainJobs by name.
        pods: Pods of workflows, as `argo_names.step_pod` makes them: named by template and hash, with Argo's
            annotations. The pod of each TrainJob's first node is added to them.
        logs: Lines of the first node, with their time stamps.
        script: Conditions of a job, one for each request: "", "Complete" or "Failed".
        forbidden: Whether creation is refused, as for a service account without the role.
        config_maps: Data of ConfigMaps by namespace and name.
    """

    def __init__(self, namespace: str = "team") -> None:
        self.namespace = namespace
        self.jobs: dict[str, dict] = {}
        self.pods: list[dict] = []
        self.logs: list[str] = []
        self.script = ["", "Complete"]
        self.forbidden = False
        self.config_maps: dict[tuple[str, str], dict[str, str]] = {}
        self.created = 0
        self.deleted: list[str] = []

    def answer(self, method: str, path: str, query: dict, body: dict) -> tuple[int, object]:
        namespace = path.partition("/namespaces/")[2].partition("/")[0]
        if path.endswith("/log"):
            return self._log(namespace, path.split("/")[-2], query)
        if path.endswith("/pods"):
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": self._selected(namespace, self._pods(), query)}
        if "/configmaps/" in path:
            name = path.rpartition("/")[2]
            if (namespace, name) not in self.config_maps:
                return 404, {"message": f'configmaps "{name}" not found'}
            return 200, {"kind": "ConfigMap", "apiVersion": "v1", "data": self.config_maps[namespace, name]}
        name = path.rpartition("/trainjobs")[2].strip("/")
        if method == "GET" and not name:
            items = self._selected(namespace, list(self.jobs.values()), query)
            return 200, {"kind": "TrainJobList", "apiVersion": "trainer.kubeflow.org/v1alpha1", "items": items}
        if method == "POST":
            if self.forbidden:
                return 403, {"message": 'trainjobs is forbidden: cannot create resource "trainjobs"'}
            check_trainjob(body)
            if body["metadata"]["name"] in self.jobs:
                return 409, {"message": "already exists"}
            self.jobs[body["metadata"]["name"]] = {**body, "looks": 0}
            self.created += 1
            return 201, body
        if name not in self.jobs:
            return 404, {"message": "not found"}
        job = self.jobs[name]
        if method == "DELETE":
            self.deleted.append(name)
            del self.jobs[name]
        elif method == "PATCH":
            job["metadata"] |= body["metadata"]
        elif method == "GET" and "status" not in job:
            shown = self.script[min(job["looks"], len(self.script) - 1)]
            job["looks"] += 1
            conditions = [{"type": shown, "status": "True", "reason": "r", "message": "m"}] if shown else []
            return 200, {**job, "status": {"conditions": conditions}}
        return 200, job

    def _pods(self) -> list[dict]:
        """Returns the pods of workflows and of first nodes; job sets label the latter with the TrainJob's name."""
        first = [
            {
                "metadata": {
                    "name": f"{name}-node-0-0-x7x7x",
                    "labels": {
                        "jobset.sigs.k8s.io/jobset-name": name,
                        "batch.kubernetes.io/job-completion-index": "0",
                    },
                },
                "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"},
            }
            for name in self.jobs
        ]
        return [*self.pods, *first]

    def _selected(self, namespace: str, items: list[dict], query: dict) -> list[dict]:
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
        if namespace != self.namespace:
            return []
        return [item for item in items if wanted.items() <= item["metadata"].get("labels", {}).items()]

    def _log(self, namespace: str, name: str, query: dict) -> tuple[int, object]:
        """Returns a pod's log. Pods have several containers (workflow/common/common.go); a request must name one."""
        pod = next((item for item in self._pods() if item["metadata"]["name"] == name), None)
        if namespace != self.namespace or pod is None:
            return 404, {"message": f'pods "{name}" not found'}
        if "log" not in pod:
            return 200, "".join(f"{line}\n" for line in self.logs)
        if query.get("container") != "main":
            return 400, {"message": "a container name must be specified, choose one of: [wait main]"}
        return 200, pod["log"]

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Path]:
        """Serves on a port of this machine; yields a kubeconfig for it."""
        with http_double.serving(self.answer) as port:
            entry = {"server": f"http://127.0.0.1:{port}"}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": entry}],
                "users": [{"name": "u", "user": {}}],
            }
            path = folder / "kubeconfig"
            path.write_text(yaml.safe_dump(config))
            yield path
