"""A server that answers like the part of the Kubernetes API that a training step uses, with Kubeflow Trainer's types.

TrainJobs are held to the types of `kubeflow-trainer-api` with unknown fields refused, which those types let pass.
"""

import json
import threading
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Union
from urllib.parse import parse_qs, urlsplit

import yaml
from kubeflow_trainer_api import models
from pydantic import BaseModel

Quantity = models.IoK8sApimachineryPkgApiResourceQuantity


class UnknownField(ValueError):
    pass


def check_trainjob(body: dict) -> None:
    """Refuse what the TrainJob's definition does not know or types otherwise.

    Raises:
        UnknownField, pydantic.ValidationError.
    """
    models.TrainerV1alpha1TrainJob.model_validate(_typed(body, models.TrainerV1alpha1TrainJob, "TrainJob"))


def _typed(value: Any, annotation: Any, where: str) -> Any:
    """`value` with its quantities as the generated types want them; unknown fields are refused on the way."""
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
    """Jobs and logs of one namespace.

    Attributes:
        jobs: TrainJobs by name.
        logs: Lines of the first node, with their time stamps.
        script: Conditions that a job shows, one at each look: "", "Complete" or "Failed".
        forbidden: Whether creating is refused, as to a service account without the role.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict] = {}
        self.logs: list[str] = []
        self.script = ["", "Complete"]
        self.forbidden = False
        self.created = 0
        self.deleted: list[str] = []

    def answer(self, method: str, path: str, query: dict, body: dict) -> tuple[int, object]:
        if path.endswith("/log"):
            return 200, "".join(f"{line}\n" for line in self.logs)
        if "/pods" in path:
            pod = {"metadata": {"name": "pod-0"}, "status": {"startTime": "2026-01-01T00:00:00Z"}}
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": [pod]}
        name = path.rpartition("/trainjobs")[2].strip("/")
        if method == "POST":
            if self.forbidden:
                return 403, {"message": 'trainjobs is forbidden: cannot create resource "trainjobs"'}
            check_trainjob(body)
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

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Path]:
        """Serve on a port of this machine; yields a kubeconfig that leads there."""
        double = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                address = urlsplit(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                query = {key: values[0] for key, values in parse_qs(address.query).items()}
                status, told = double.answer(self.command, address.path, query, json.loads(raw or b"{}"))
                data = told.encode() if isinstance(told, str) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(told, str) else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        entry = {"server": f"http://127.0.0.1:{server.server_port}"}
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
        try:
            yield path
        finally:
            server.shutdown()
            server.server_close()
