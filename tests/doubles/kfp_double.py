"""A server that answers like the API of Kubeflow Pipelines (v2beta1), strictly: what the real client may count on.

Requests are held to the API's own definitions, as the generated client has them: an unknown field is refused, as the
real server refuses it (`DiscardUnknown: false`), and fields without a value are left out of answers.
"""

import contextlib
import json
import re
import ssl
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml

PREFIX = "/apis/v2beta1/"
STATES = ("PENDING", "RUNNING", "SUCCEEDED")
STEPS = ("resolve-data", "preprocess", "train", "evaluate", "register", "gate")


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Double:
    """State of the server and what a test may set.

    Attributes:
        tokens: Token -> namespaces that it may use; empty means that none is asked for.
        script: States that a run goes through, one at each look.
        outages: Answers still to be refused with 503.
        calls: (method, path) of every request.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, set[str]] = {}
        self.namespaces = {"team"}
        self.script = list(STATES)
        self.outages = 0
        self.calls: list[tuple[str, str]] = []
        self.experiments: dict[str, dict] = {}
        self.pipelines: dict[str, dict] = {}
        self.versions: dict[str, dict] = {}
        self.specs: dict[str, str] = {}
        self.runs: dict[str, dict] = {}
        self.recurring: dict[str, dict] = {}
        self.error = ""
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)

    def answer(self, method: str, path: str, query: dict, body: dict, upload: str, token: str) -> dict:
        self.calls.append((method, path))
        if self.outages:
            self.outages -= 1
            raise Refused(503, "upstream connect error")
        self._authenticate(token)
        for known, pattern, handler in ROUTES:
            if known == method and (found := re.fullmatch(pattern, path)):
                return handler(self, query, body if not upload else {"upload": upload}, *found.groups()) or {}
        raise Refused(404, f"no route for {method} {path}")

    def _authenticate(self, token: str) -> None:
        if self.tokens and token not in self.tokens:
            raise Refused(401, "Request header error: there is no user identity header.")
        self._allowed = self.tokens.get(token, self.namespaces)

    def _namespace(self, name: str) -> None:
        if name not in self.namespaces or name not in self._allowed:
            raise Refused(403, f"User is not authorized with reason: namespace {name}")

    def _now(self) -> str:
        self._clock += timedelta(seconds=1)
        return self._clock.isoformat().replace("+00:00", "Z")

    def list_experiments(self, query, body):
        self._namespace(query.get("namespace", ""))
        found = [item for item in self.experiments.values() if item["namespace"] == query["namespace"]]
        return page("experiments", _filtered(found, query), query)

    def create_experiment(self, query, body):
        strict(body, kfp_server_api.V2beta1Experiment)
        self._namespace(body.get("namespace", ""))
        if any(item["display_name"] == body["display_name"] for item in self.experiments.values()):
            raise Refused(409, f"Already exist error: experiment {body['display_name']}")
        made = {**body, "experiment_id": str(uuid.uuid4()), "created_at": self._now()}
        return self.experiments.setdefault(made["experiment_id"], made)

    def list_pipelines(self, query, body):
        return page("pipelines", _filtered(list(self.pipelines.values()), query), query)

    def upload_pipeline(self, query, body):
        self._namespace(query.get("namespace", ""))
        if any(item["display_name"] == query["name"] for item in self.pipelines.values()):
            raise Refused(409, f"Already exist error: pipeline {query['name']}")
        made = {"pipeline_id": str(uuid.uuid4()), "display_name": query["name"], "created_at": self._now()}
        self.pipelines[made["pipeline_id"]] = made
        self._add_version(made["pipeline_id"], query["name"], body["upload"])
        return made

    def upload_version(self, query, body):
        if query["pipelineid"] not in self.pipelines:
            raise Refused(404, f"Pipeline {query['pipelineid']} not found.")
        return self._add_version(query["pipelineid"], query["name"], body["upload"])

    def _add_version(self, pipeline_id: str, name: str, text: str) -> dict:
        if any((v["pipeline_id"], v["display_name"]) == (pipeline_id, name) for v in self.versions.values()):
            raise Refused(409, f"Already exist error: pipeline version {name}")
        spec, *_ = yaml.safe_load_all(text)
        if "deploymentSpec" not in spec:
            raise Refused(400, "InvalidInputError: unknown template format")
        made = {"pipeline_id": pipeline_id, "pipeline_version_id": str(uuid.uuid4()), "display_name": name}
        self.specs[made["pipeline_version_id"]] = text
        return self.versions.setdefault(made["pipeline_version_id"], made)

    def list_versions(self, query, body, pipeline_id):
        found = [item for item in self.versions.values() if item["pipeline_id"] == pipeline_id]
        return page("pipeline_versions", _filtered(found, query), query)

    def create_run(self, query, body):
        strict(body, kfp_server_api.V2beta1Run)
        self._check_job(body)
        made = {**body, "run_id": str(uuid.uuid4()), "created_at": self._now(), "state": "PENDING", "looks": 0}
        self.runs[made["run_id"]] = made
        return self._shown(made)

    def _check_job(self, body: dict) -> None:
        experiment = self.experiments.get(body.get("experiment_id", ""))
        if experiment is None:
            raise Refused(404, "Experiment not found.")
        self._namespace(experiment["namespace"])
        version = self.specs.get(body["pipeline_version_reference"]["pipeline_version_id"])
        if version is None:
            raise Refused(404, "PipelineVersion not found.")
        spec = next(yaml.safe_load_all(version))
        declared = set(spec["root"]["inputDefinitions"]["parameters"])
        given = set(body["runtime_config"]["parameters"])
        if declared != given:
            raise Refused(400, f"InvalidInputError: parameters {sorted(declared ^ given)}")

    def list_runs(self, query, body):
        if "experiment_id" in query:
            found = [item for item in self.runs.values() if item["experiment_id"] == query["experiment_id"]]
        else:
            self._namespace(query.get("namespace", ""))
            found = list(self.runs.values())
        if query.get("sort_by") == "created_at desc":
            found = sorted(found, key=lambda item: item["created_at"], reverse=True)
        return page("runs", [self._shown(item) for item in _filtered(found, query)], query)

    def get_run(self, query, body, run_id):
        run = self._run(run_id)
        if run["state"] not in ("SUCCEEDED", "FAILED", "CANCELED"):
            run["state"] = self.script[min(run["looks"], len(self.script) - 1)]
            run["looks"] += 1
        return self._shown(run)

    def _run(self, run_id: str) -> dict:
        if run_id not in self.runs:
            raise Refused(404, f"Run {run_id} not found.")
        return self.runs[run_id]

    def _shown(self, run: dict) -> dict:
        shown = {key: value for key, value in run.items() if key != "looks"}
        step = {"SUCCEEDED": "SUCCEEDED", "FAILED": "FAILED"}.get(run["state"], "RUNNING")
        details = [{"display_name": name, "state": step} for name in ("root", "train-driver", *STEPS)]
        shown["run_details"] = {"task_details": details if run["state"] != "PENDING" else []}
        if run["state"] == "FAILED":
            shown["error"] = {"code": 13, "message": self.error or "step train failed"}
        return shown

    def terminate_run(self, query, body, run_id):
        self._run(run_id)["state"] = "CANCELED"

    def create_recurring(self, query, body):
        strict(body, kfp_server_api.V2beta1RecurringRun)
        self._check_job(body)
        if len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise Refused(400, "InvalidInputError: Schedule cron is not a valid cron expression")
        made = {**body, "recurring_run_id": str(uuid.uuid4()), "status": "ENABLED", "created_at": self._now()}
        return self.recurring.setdefault(made["recurring_run_id"], made)

    def list_recurring(self, query, body):
        self._namespace(query.get("namespace", ""))
        return page("recurringRuns", list(self.recurring.values()), query)

    def delete_recurring(self, query, body, recurring_id):
        self.recurring.pop(recurring_id)


ROUTES = [
    ("GET", "healthz", lambda *_: {"multi_user": True}),
    ("GET", "experiments", Double.list_experiments),
    ("POST", "experiments", Double.create_experiment),
    ("GET", "pipelines", Double.list_pipelines),
    ("POST", "pipelines/upload", Double.upload_pipeline),
    ("POST", "pipelines/upload_version", Double.upload_version),
    ("GET", "pipelines/([^/]+)/versions", Double.list_versions),
    ("GET", "runs", Double.list_runs),
    ("POST", "runs", Double.create_run),
    ("GET", "runs/([^/:]+)", Double.get_run),
    ("POST", "runs/([^/:]+):terminate", Double.terminate_run),
    ("GET", "recurringruns", Double.list_recurring),
    ("POST", "recurringruns", Double.create_recurring),
    ("DELETE", "recurringruns/([^/:]+)", Double.delete_recurring),
]


def strict(body: dict, definition: type) -> None:
    """Refuse fields that the API's definition lacks, at every depth that it types."""
    known = {definition.attribute_map[name]: kind for name, kind in definition.openapi_types.items()}
    for key, value in body.items():
        if key not in known:
            raise Refused(400, f'unknown field "{key}" in {definition.__name__}')
        inner = getattr(kfp_server_api, known[key], None)
        if isinstance(value, dict) and inner is not None:
            strict(value, inner)


def page(key: str, items: list[dict], query: dict) -> dict:
    """One page of a list; the token is the position after it."""
    start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)
    answer = {key: items[start : start + size], "total_size": len(items)}
    if start + size < len(items):
        answer["next_page_token"] = str(start + size)
    return {name: value for name, value in answer.items() if value}


def _filtered(items: list[dict], query: dict) -> list[dict]:
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        if set(predicate) - {"operation", "key", "stringValue"}:
            raise Refused(400, f"unknown field in filter: {sorted(predicate)}")
        if predicate["operation"] not in ("EQUALS", 1):
            raise Refused(400, f"operation {predicate['operation']}")
        items = [item for item in items if item[predicate["key"]] == predicate["stringValue"]]
    return items


@contextlib.contextmanager
def serving(double: Double, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The double on a port of this machine; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(double))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(double: Double) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upload = body = ""
            if "multipart" in self.headers.get("Content-Type", ""):
                upload = raw.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0].decode()
            elif raw:
                body = json.loads(raw)
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                told = double.answer(self.command, address.path.removeprefix(PREFIX), query, body or {}, upload, token)
                self._send(200, told)
            except Refused as refused:
                self._send(refused.status, {"error": str(refused), "code": 3, "message": str(refused)})

        do_GET = do_POST = do_DELETE = _serve

        def _send(self, status: int, told: dict) -> None:
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
