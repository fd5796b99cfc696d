"""A server that answers like Kubeflow Pipelines 2.17 (v2beta1), at least as strictly.

Each behavior names the file of kubeflow/pipelines 2.17.0 that it follows, below backend/src (S/). Requests are held to
the API's own definitions, as the generated client has them.
"""

import base64
import binascii
import contextlib
import functools
import itertools
import json
import re
import ssl
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import argo_names
import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.compiling import YamlLoader

PREFIX = "/apis/v2beta1/"
STATES = ("PENDING", "RUNNING", "SUCCEEDED")
STEPS = ("configure", "resolve-data", "preprocess", "train", "finetune-vocoder", "evaluate", "register", "gate")
GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
TERMINABLE = ("PAUSED", "PENDING", "RUNNING")
FINAL = ("SUCCEEDED", "SKIPPED", "FAILED")
DEFAULT_PAGE, LARGEST_PAGE = 20, 200  # S/apiserver/list/list.go
PIPELINE_CONFIG_2_16 = {"resourceTtl", "workspace"}
"""Fields of PipelineConfig in 2.16.1 (api/v2alpha1/pipeline_spec.proto); 2.17 renamed one and added three."""

RUN_KEYS = {"run_id", "display_name", "created_at", "finished_at", "storage_state", "state", "experiment_id"}
KEYS = {  # APIToModelFieldMap in S/apiserver/model: what may be sorted and filtered by
    "runs": RUN_KEYS | {"id", "name", "namespace", "recurring_run_id", "scheduled_at", "status", "description"},
    "experiments": {"experiment_id", "id", "display_name", "name", "created_at", "namespace", "storage_state"},
    "pipelines": {"pipeline_id", "id", "display_name", "name", "created_at", "description", "namespace"},
    "pipeline_versions": {"pipeline_version_id", "id", "display_name", "name", "created_at", "description"},
    "recurringRuns": {"recurring_run_id", "id", "display_name", "name", "created_at", "namespace", "status"},
}
IDS = {
    "runs": "run_id",
    "experiments": "experiment_id",
    "pipelines": "pipeline_id",
    "pipeline_versions": "pipeline_version_id",
    "recurringRuns": "recurring_run_id",
}


class Refused(Exception):
    """An error of the gRPC services: the gateway writes it as `{"code", "message", "details"}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def body(self) -> tuple[str, str]:
        """Returns (content type, text) of the response."""
        return "application/json", json.dumps({"code": GRPC[self.status], "message": str(self), "details": []})


class UploadRefused(Refused):
    """An error of the upload handlers, which are plain HTTP (S/apiserver/server/pipeline_upload_server.go)."""

    def body(self) -> tuple[str, str]:
        """Returns the fields of the v1 API's error; a content type is not set here (writeErrorToResponse)."""
        return "text/plain", json.dumps({"error_message": str(self), "error_details": str(self)})


class PlainRefused(Refused):
    """An error of the upload handlers that `http.Error` writes as text."""

    def body(self) -> tuple[str, str]:
        return "text/plain; charset=utf-8", f"{self}\n"


@dataclass
class Request:
    """One request.

    Attributes:
        query, body: As sent.
        upload: Text of the uploaded file.
        filename: Its name.
        allowed: Namespaces that the sender may use; `None` for an unknown token.
    """

    query: dict = field(default_factory=dict)
    body: dict = field(default_factory=dict)
    upload: str = ""
    filename: str = ""
    allowed: set[str] | None = None


class Double:
    """State of the server, and its behavior, which tests may change.

    Attributes:
        multi_user: Whether namespaces are kept apart and access is checked.
        tag_name: Release that healthz reports; `unknown` as in images that were built without one.
        through_ui: Whether requests pass through the server of the web interface, which answers healthz itself.
        ui_ready: Whether that server reaches the API server.
        pod_namespace: Where the server runs; in single-user mode its runs too.
        tokens: Token -> namespaces that it may use; empty means that no token is required.
        namespaces: Existing namespaces.
        script: States that a run goes through, one at each request for it.
        current: The step that a running run executes, or at which it fails.
        attempts: Step -> number of its attempts.
        reports_canceling: Whether the persistence agent reports a terminated workflow before it ended.
        before_row: Called after a run's time of creation is set and before the run can be listed.
        outages: Number of the next requests to refuse with 503.
        internal_errors: Number of the next requests to refuse with 500.
        calls: (method, path) of every request.
    """

    def __init__(self, multi_user: bool = True) -> None:
        self.multi_user = multi_user
        self.tag_name = "2.17.0"
        self.through_ui = False
        self.ui_ready = True
        self.pod_namespace = "kubeflow"
        self.tokens: dict[str, set[str]] = {}
        self.namespaces = {"team"}
        self.script = list(STATES)
        self.current = "train"
        self.attempts: dict[str, int] = {}
        self.reports_canceling = True
        self.before_row: Callable[[dict], None] = lambda run: None
        self.outages = 0
        self.internal_errors = 0
        self.calls: list[tuple[str, str]] = []
        self.experiments: dict[str, dict] = {}
        self.pipelines: dict[str, dict] = {}
        self.versions: dict[str, dict] = {}
        self.specs: dict[str, str] = {}
        self.platforms: dict[str, dict] = {}
        self.runs: dict[str, dict] = {}
        self.recurring: dict[str, dict] = {}
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._lock = threading.RLock()
        self._indices = itertools.count(1)

    def answer(self, method: str, path: str, request: Request, token: str) -> dict:
        """Returns the response to a request.

        Raises:
            Refused: with the status and the text of the real server.
        """
        self.calls.append((method, path))
        if self.outages:
            self.outages -= 1
            raise Refused(503, "upstream connect error")
        if self.internal_errors:
            self.internal_errors -= 1
            raise Refused(500, "InternalServerError: Failed to start transaction: dial tcp: connection refused")
        # S/apiserver/resource/resource_manager.go, IsAuthorized: only multi-user mode asks who it is.
        request.allowed = self.tokens.get(token) if self.tokens else self.namespaces
        for known, pattern, handler in ROUTES:
            if known == method and (found := re.fullmatch(pattern, path)):
                return handler(self, request, *found.groups()) or {}
        raise Refused(404, "Not Found")

    def _access(self, request: Request, namespace: str) -> None:
        """Checks access: 401 without identity, 403 without permission; nothing in single-user mode (IsAuthorized)."""
        if not self.multi_user:
            return
        if request.allowed is None:
            raise Refused(401, "Unauthenticated: Failed to check authorization. User identity is empty")
        if namespace not in request.allowed:
            raise Refused(403, f"PermissionDenied: User is not authorized with reason: (namespace {namespace})")

    def _replaced(self, namespace: str) -> str:
        """Returns the namespace of a request, which single-user mode ignores (ReplaceNamespace)."""
        return namespace if self.multi_user else ""

    def _required(self, namespace: str, what: str) -> str:
        if self.multi_user and not namespace:
            raise Refused(400, f"Invalid input error: {what} cannot have an empty namespace in multi-user mode")
        return namespace

    def _now(self) -> str:
        """Returns the time in whole seconds, as the server's database stores it."""
        self._clock += timedelta(seconds=1)
        return self._clock.isoformat().replace("+00:00", "Z")

    def healthz(self, request: Request) -> dict:
        """Returns mode and release, without authorization (S/apiserver/main.go, newHealthzResponse)."""
        if self.through_ui:  # frontend/server/handlers/healthz.ts; nothing of the API server before it was reached
            healthz = {"buildDate": "2026", "frontendTagName": "2.18.0", "apiServerReady": self.ui_ready}
            known = {"apiServerTagName": self.tag_name, "apiServerMultiUser": self.multi_user}
            return healthz | ({**known, "multi_user": self.multi_user} if self.ui_ready else {})
        healthz = {"commit_sha": "unknown", "tag_name": self.tag_name, "multi_user": self.multi_user}
        return {**healthz, "pipeline_store": "database"}

    def list_experiments(self, request: Request) -> dict:
        namespace = self._required(self._replaced(request.query.get("namespace", "")), "An experiment")
        self._access(request, namespace)
        found = [item for item in self.experiments.values() if item.get("namespace", "") == namespace]
        return page("experiments", found, request.query)

    def create_experiment(self, request: Request) -> dict:
        body = strict(request.body, kfp_server_api.V2beta1Experiment)
        namespace = self._required(self._replaced(body.get("namespace", "")), "An experiment")
        self._access(request, namespace)
        # S/apiserver/model/experiment.go: unique by (name, namespace).
        for item in self.experiments.values():
            if (item["display_name"], item.get("namespace", "")) == (body["display_name"], namespace):
                raise Refused(409, f"Already exist error: The name {body['display_name']} already exists")
        made = {**body, "namespace": namespace, "experiment_id": str(uuid.uuid4()), "created_at": self._now()}
        return shown(self.experiments.setdefault(made["experiment_id"], made))

    def list_pipelines(self, request: Request) -> dict:
        """Lists pipelines; without a namespace only the shared ones, which every user may read (pipeline_server.go)."""
        namespace = self._replaced(request.query.get("namespace", ""))
        if namespace:
            self._access(request, namespace)
        found = [item for item in self.pipelines.values() if item.get("namespace", "") == namespace]
        return page("pipelines", found, request.query)

    def upload_pipeline(self, request: Request) -> dict:
        """Uploads a pipeline with its first version (pipeline_upload_server.go, uploadPipeline)."""
        self._readable(request)
        namespace = self._replaced(request.query.get("namespace", ""))
        self._may_upload(request, namespace, "Failed to create a pipeline")
        name = request.query.get("name") or request.filename
        if len(name) > 128:
            raise PlainRefused(400, "Pipeline.Name length cannot exceed 128")
        self._check_template(request.upload)
        if any((item["name"], item["namespace"]) == (name, namespace) for item in self.pipelines.values()):
            raise UploadRefused(409, "Failed to create a pipeline and a pipeline version")
        made = {"pipeline_id": str(uuid.uuid4()), "name": name, "display_name": name, "namespace": namespace}
        made["created_at"] = self._now()
        self.pipelines[made["pipeline_id"]] = made
        self._add_version(made["pipeline_id"], name, request.upload)
        return shown(made)

    def upload_version(self, request: Request) -> dict:
        """Uploads a version; an unknown pipeline is 400 (pipeline_upload_server.go, uploadPipelineVersion)."""
        refusal = "Failed to create a pipeline version"
        self._readable(request)
        pipeline = self.pipelines.get(request.query.get("pipelineid", ""))
        if pipeline is None:
            raise UploadRefused(400, refusal)
        if len(request.query["name"]) > 127:
            raise PlainRefused(400, "PipelineVersion.Name length cannot exceed 127")
        self._may_upload(request, pipeline["namespace"], refusal)
        self._check_template(request.upload)
        name = request.query["name"]
        if any(
            (item["pipeline_id"], item["name"]) == (pipeline["pipeline_id"], name) for item in self.versions.values()
        ):
            raise UploadRefused(409, refusal)
        return shown(self._add_version(pipeline["pipeline_id"], name, request.upload))

    def _readable(self, request: Request) -> None:
        if not request.filename.endswith((".yaml", ".yml", ".json", ".zip", ".tar.gz")):
            raise UploadRefused(400, "Failed to read a pipeline spec file")

    def _may_upload(self, request: Request, namespace: str, refusal: str) -> None:
        """Refuses a forbidden upload, also without identity, as 400 without a reason (canUploadVersionedPipeline)."""
        if self.multi_user and namespace and namespace not in (request.allowed or ()):
            raise UploadRefused(400, refusal)

    def _check_template(self, text: str) -> None:
        if spec_of(text) is None:
            raise UploadRefused(400, "invalid v2 pipeline spec: no pipeline spec is provided")

    def _add_version(self, pipeline_id: str, name: str, text: str) -> dict:
        made = {"pipeline_id": pipeline_id, "pipeline_version_id": str(uuid.uuid4()), "name": name}
        made |= {"display_name": name, "created_at": self._now()}
        self.specs[made["pipeline_version_id"]] = text
        self.platforms[made["pipeline_version_id"]] = self._platform(text)
        return self.versions.setdefault(made["pipeline_version_id"], made)

    def _platform(self, text: str) -> dict:
        """Returns the platform document; one with an unknown field is silently dropped (template/v2_template.go)."""
        documents = [item for item in yaml.load_all(text, YamlLoader) if "platforms" in (item or {})]
        if not documents:
            return {}
        try:
            json_format.ParseDict(documents[0], pipeline_spec_pb2.PlatformSpec())
        except json_format.ParseError:
            return {}
        settings = documents[0]["platforms"].get("kubernetes", {}).get("pipelineConfig", {})
        if self._release() < (2, 17) and set(settings) - PIPELINE_CONFIG_2_16:
            return {}
        return documents[0]

    def _release(self) -> tuple[int, ...]:
        found = re.match(r"(\d+)\.(\d+)", self.tag_name)
        return tuple(int(part) for part in found.groups()) if found else (2, 17)

    def list_versions(self, request: Request, pipeline_id: str) -> dict:
        if pipeline_id not in self.pipelines:
            raise Refused(404, f"ResourceNotFoundError: Pipeline {pipeline_id} not found")
        if namespace := self.pipelines[pipeline_id]["namespace"]:
            self._access(request, namespace)
        found = [item for item in self.versions.values() if item["pipeline_id"] == pipeline_id]
        return page("pipeline_versions", found, request.query)

    def get_version(self, request: Request, pipeline_id: str, version_id: str) -> dict:
        if version_id not in self.versions:
            raise Refused(404, f"ResourceNotFoundError: PipelineVersion {version_id} not found")
        self._access(request, self.pipelines[pipeline_id]["namespace"])
        return shown(self.versions[version_id])

    def delete_version(self, request: Request, pipeline_id: str, version_id: str) -> None:
        self._access(request, self.pipelines[pipeline_id]["namespace"])
        del self.versions[version_id], self.specs[version_id]

    def create_run(self, request: Request) -> dict:
        """Creates a run (S/apiserver/server/run_server.go and resource_manager.go, CreateRun)."""
        body = strict(request.body, kfp_server_api.V2beta1Run)
        if not body.get("display_name"):
            raise Refused(400, "Invalid input error: The run name is empty. Please specify a valid name")
        experiment = self._check_job(request, body)
        created = self._now()
        made = self._new_run(body, experiment, created)
        # The time of creation is set first, then the workflow is created, then the row is written.
        self.before_row(made)
        self.runs[made["run_id"]] = made
        return self._shown(made)

    def _new_run(self, body: dict, experiment: dict, created: str) -> dict:
        name = f"{spec_of(self._text(body))['pipelineInfo']['name']}-{uuid.uuid4().hex[:5]}"
        namespace = experiment["namespace"]
        made = {**body, "run_id": str(uuid.uuid4()), "created_at": created, "state": "PENDING"}
        made |= {"storage_state": "AVAILABLE", "state_history": [{"update_time": created, "state": "PENDING"}]}
        private = {"looks": 0, "workflow": name, "namespace": namespace}
        return {**made, "_": {**private, "workflow_namespace": namespace or self.pod_namespace}}

    def _text(self, body: dict) -> str:
        return self.specs[body["pipeline_version_reference"]["pipeline_version_id"]]

    def _check_job(self, request: Request, body: dict) -> dict:
        """Checks the inputs of a run or a schedule and returns its experiment."""
        if self.multi_user and not body.get("experiment_id"):
            raise Refused(400, "Invalid input error: Experiment id can not be empty in multi-user mode")
        experiment = self.experiments.get(body.get("experiment_id", ""))
        if experiment is None:
            raise Refused(404, f"ResourceNotFoundError: Experiment {body.get('experiment_id')} not found")
        self._access(request, experiment["namespace"])
        version = body["pipeline_version_reference"]["pipeline_version_id"]
        if version not in self.specs:
            # fetchTemplateFromPipelineSpec's "not found" is wrapped as an internal error.
            raise Refused(500, "InternalServerError: Failed to create a run due to error fetching manifest")
        declared = spec_of(self.specs[version])["root"].get("inputDefinitions", {}).get("parameters", {})
        given = body.get("runtime_config", {}).get("parameters", {})
        for name, parameter in declared.items():  # v2_template.go, validatePipelineJobInputs
            if name not in given and not parameter.get("isOptional") and "defaultValue" not in parameter:
                raise Refused(400, f"Invalid input error: parameter {name} is not optional, yet has neither default")
            if name in given and parameter["parameterType"] == "STRING" and not isinstance(given[name], str):
                raise Refused(400, f"Invalid input error: input parameter {name} requires type string")
        if extra := sorted(set(given) - set(declared)):
            raise Refused(400, f"Invalid input error: parameter(s) provided are not required by pipeline: {extra}")
        return experiment

    def list_runs(self, request: Request) -> dict:
        if experiment_id := request.query.get("experiment_id"):
            if experiment_id not in self.experiments:
                raise Refused(404, f"ResourceNotFoundError: Experiment {experiment_id} not found")
            self._access(request, self.experiments[experiment_id]["namespace"])
            found = [item for item in self.runs.values() if item["experiment_id"] == experiment_id]
        else:
            namespace = self._required(self._replaced(request.query.get("namespace", "")), "A run")
            self._access(request, namespace)
            # S/apiserver/storage/run_store.go: in single-user mode, runs of all namespaces.
            found = [item for item in self.runs.values() if not namespace or item["_"]["namespace"] == namespace]
        return page("runs", found, request.query, self._shown)

    def get_run(self, request: Request, run_id: str) -> dict:
        with self._lock:
            run = self._run(request, run_id)
            self._advance(run)
            return self._shown(run)

    def _advance(self, run: dict) -> None:
        """Applies the states that the persistence agent has reported since the last request."""
        hidden = run["_"]
        if run["state"] in FINAL:
            return
        if hidden.get("terminated"):
            # resource_manager.go, ReportWorkflowResource: CANCELING while it terminates, then Argo's own phase.
            if self.reports_canceling and run["state_history"][-1]["state"] != "CANCELING":
                self._enter(run, "CANCELING")
            elif hidden.setdefault("ending", 0) or not self.reports_canceling:
                self._enter(run, "FAILED")
            hidden["ending"] = hidden.get("ending", 0) + 1
            return
        self._enter(run, self.script[min(hidden["looks"], len(self.script) - 1)])
        hidden["looks"] += 1

    def _enter(self, run: dict, state: str) -> None:
        """Sets the state of a run and appends it to the history (run_store.go, UpdateRun)."""
        run["state"] = state
        if run["state_history"][-1]["state"] != state:
            run["state_history"].append({"update_time": self._now(), "state": state})

    def _run(self, request: Request, run_id: str) -> dict:
        """Returns a run after a check of access to its namespace (canAccessRun)."""
        if run_id not in self.runs:
            raise Refused(404, f"ResourceNotFoundError: Run {run_id} not found")
        self._access(request, self.runs[run_id]["_"]["namespace"])
        return self.runs[run_id]

    def _shown(self, run: dict) -> dict:
        """Returns a run as the API shows it; a failed run has no `error` (server/api_converter.go, toApiRun)."""
        answer = {key: value for key, value in run.items() if key != "_"}
        if tasks := self._tasks(run):
            answer["run_details"] = {"task_details": tasks}
        return shown(answer)

    def _tasks(self, run: dict) -> list[dict]:
        """Argo's nodes as NodeStatuses lists them (S/common/util/workflow.go): by pod name, without saying which.

        The workflow, `root` and its attempts, drivers, steps, `executor` and its attempts are tasks alike; children are
        node ids, but a task does not contain its own. The launcher's cache adds tasks without name and state.
        """
        if run["state"] == "PENDING":
            return []
        workflow, state = run["_"]["workflow"], run["state"]
        over = state in FINAL
        whole = {"CANCELING": "RUNNING"}.get(state, state)
        nodes = [self._node(workflow, workflow, workflow, whole, 0, over)]
        for name in ("root-driver", "root-driver(0)"):
            nodes.append(self._node(workflow, f"{workflow}.{name}", name, "SUCCEEDED", 1, True))
        for name in ("root", "root(0)"):
            nodes.append(self._node(workflow, f"{workflow}.{name}", name, whole, 2, over))
        reached = len(STEPS) if state == "SUCCEEDED" else STEPS.index(self.current) + 1
        for index, step in enumerate(STEPS[:reached]):
            last = index == reached - 1
            nodes += self._step(workflow, step, whole if last and state != "SUCCEEDED" else "SUCCEEDED", index)
        nodes.append({"create_time": run["created_at"], "task_id": str(uuid.uuid4()), "run_id": run["run_id"]})
        return sorted(nodes, key=lambda node: node.get("task_id", ""))

    def _step(self, workflow: str, step: str, state: str, index: int) -> Iterator[dict]:
        path, start = f"{workflow}.root.{step}", 10 + 100 * index
        over = state in FINAL
        for name in (f"{step}-driver", f"{step}-driver(0)"):
            yield self._node(workflow, f"{workflow}.root.{name}", name, "SUCCEEDED", start, True)
        yield self._node(workflow, path, step, state, start + 5, over)
        yield self._node(workflow, f"{path}(0)", f"{step}(0)", state, start + 5, over)
        count = self.attempts.get(step, 1)
        children = [argo_names.node_id(workflow, f"{path}.executor({attempt})") for attempt in range(count)]
        yield self._node(workflow, f"{path}.executor", "executor", state, start + 5, over, children)
        for attempt in range(count):
            own = state if attempt == count - 1 else "FAILED"
            yield self._node(workflow, f"{path}.executor({attempt})", f"executor({attempt})", own, start + 6, over)

    def _node(self, workflow, name, shown_name, state, at, over, children=()) -> dict:
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        stamps = [(begin + timedelta(seconds=second)).isoformat().replace("+00:00", "Z") for second in (at, at + 50)]
        node = {"task_id": f"{argo_names.fnv32a(name):08x}", "display_name": shown_name, "start_time": stamps[0]}
        node |= {"state": state} if state else {}
        node["end_time"] = stamps[1] if over else "1970-01-01T00:00:00Z"  # a time that is not there is zero
        if children:
            node["child_tasks"] = [{"pod_name": child} for child in children]
        return node

    def terminate_run(self, request: Request, run_id: str) -> None:
        """Terminates a run; one that has ended or is being terminated is 400 (run_store.go, TerminateRun)."""
        run = self._run(request, run_id)
        if run["state"] not in TERMINABLE:
            raise Refused(400, f"Invalid input error: Failed to terminate a run {run_id}. Row not found")
        run["state"] = "CANCELING"  # the history is not appended to here
        run["_"]["terminated"] = True

    def create_recurring(self, request: Request) -> dict:
        """Creates a schedule (S/apiserver/server/job_server.go and api_converter.go, toModelJob)."""
        body = strict(request.body, kfp_server_api.V2beta1RecurringRun)
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise Refused(400, "Invalid input error: Max concurrency of a recurring run must be at least 1")
        check_cron(body["trigger"]["cron_schedule"]["cron"])
        experiment = self._check_job(request, body)
        made = {**body, "recurring_run_id": str(uuid.uuid4()), "created_at": self._now()}
        made["status"] = "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"
        made["namespace"] = experiment["namespace"] or self.pod_namespace
        return shown(self.recurring.setdefault(made["recurring_run_id"], made))

    def fire(self, recurring_id: str) -> str:
        """Starts a scheduled run, which is named after its workflow (ReportWorkflowResource)."""
        job = self.recurring[recurring_id]
        body = {key: job[key] for key in ("experiment_id", "pipeline_version_reference", "runtime_config")}
        run = self._new_run(body, self.experiments[job["experiment_id"]], self._now())
        name = f"{re.sub('[^a-z0-9]', '', job['display_name'].lower())[:25]}-{next(self._indices)}"
        run |= {"display_name": f"{name}-{argo_names.fnv32a(name)}", "recurring_run_id": recurring_id}
        self.runs[run["run_id"]] = run
        return run["run_id"]

    def list_recurring(self, request: Request) -> dict:
        namespace = self._required(self._replaced(request.query.get("namespace", "")), "a recurring run")
        self._access(request, namespace)
        found = [item for item in self.recurring.values() if not namespace or item["namespace"] == namespace]
        return page("recurringRuns", found, request.query)

    def delete_recurring(self, request: Request, recurring_id: str) -> None:
        if recurring_id not in self.recurring:
            raise Refused(404, f"ResourceNotFoundError: Job {recurring_id} not found")
        self._access(request, self.recurring[recurring_id]["namespace"])
        del self.recurring[recurring_id]


ROUTES = [
    ("GET", "healthz", Double.healthz),
    ("GET", "experiments", Double.list_experiments),
    ("POST", "experiments", Double.create_experiment),
    ("GET", "pipelines", Double.list_pipelines),
    ("POST", "pipelines/upload", Double.upload_pipeline),
    ("POST", "pipelines/upload_version", Double.upload_version),
    ("GET", "pipelines/([^/]+)/versions", Double.list_versions),
    ("GET", "pipelines/([^/]+)/versions/([^/]+)", Double.get_version),
    ("DELETE", "pipelines/([^/]+)/versions/([^/]+)", Double.delete_version),
    ("GET", "runs", Double.list_runs),
    ("POST", "runs", Double.create_run),
    ("GET", "runs/([^/:]+)", Double.get_run),
    ("POST", "runs/([^/:]+):terminate", Double.terminate_run),
    ("GET", "recurringruns", Double.list_recurring),
    ("POST", "recurringruns", Double.create_recurring),
    ("DELETE", "recurringruns/([^/:]+)", Double.delete_recurring),
]


@functools.cache
def spec_of(text: str) -> dict | None:
    """Returns the document of the pipeline spec in an uploaded file, or None."""
    return next((item for item in yaml.load_all(text, YamlLoader) if "pipelineInfo" in (item or ())), None)


def strict(body: dict, definition: type) -> dict:
    """Returns the body after a check against the API's definition, nested types included (common/utils.go)."""
    known = {definition.attribute_map[name]: kind for name, kind in definition.openapi_types.items()}
    for key, value in body.items():
        if key not in known:
            raise Refused(400, f'proto: unknown field "{key}" in {definition.__name__}')
        inner = getattr(kfp_server_api, known[key], None)
        if isinstance(value, dict) and inner is not None:
            strict(value, inner)
    return body


def shown(item: dict) -> dict:
    """Returns a response without the fields that have no value (utils.go, EmitUnpopulated: false)."""
    return {key: value for key, value in item.items() if value not in ("", None, [], {}, 0)}


FIELDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat"


def check_cron(text: str) -> None:
    """Checks a schedule as robfig/cron 1.2.0 does: seconds first, weekday optional, so that five fields are accepted.

    Raises:
        Refused: the server would not parse it.
    """
    refusal = "Invalid input error: Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron)"
    if text in ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"):
        return
    if re.fullmatch(r"@every (\d+(\.\d+)?(ns|us|ms|s|m|h))+", text):
        return
    parts = text.split()
    if not 5 <= len(parts) <= 6:
        raise Refused(400, f"{refusal}. Error: Expected 5 to 6 fields, found {len(parts)}: {text}")
    for part, (low, high) in zip(parts, FIELDS, strict=False):
        for item in part.lower().split(","):
            numbers = [int(number) for number in re.findall(r"(?<!/)\b\d+", item)]
            form = re.fullmatch(rf"(\*|\?|(\d+|{NAMES})(-(\d+|{NAMES}))?)(/[1-9]\d*)?", item)
            if not form or any(not low <= number <= high for number in numbers) or numbers != sorted(numbers):
                raise Refused(400, f"{refusal}. Error: {item}")


def page(key: str, items: list[dict], query: dict, show: Callable[[dict], dict] = shown) -> dict:
    """Returns one page of a list, sorted and filtered (S/apiserver/list/list.go, server/list_request_util.go).

    A token holds the first item of the next page and the criteria of the list; a request with other criteria is 400.
    """
    criteria = _criteria(key, query)
    after: dict = {}
    if query.get("page_token"):
        try:
            after = json.loads(base64.b64decode(query["page_token"], validate=True))
        except (binascii.Error, ValueError) as error:
            raise Refused(400, "InvalidInputError: Invalid page token") from error
        if (query.get("sort_by") or query.get("filter")) and after["criteria"] != criteria:
            raise Refused(400, "Invalid input error: page token does not match the supplied sort by and/or filtering")
        criteria = after["criteria"]
    size = int(query.get("page_size") or 0)
    if size < 0:
        raise Refused(400, f"Invalid input error: The page size should be greater than 0. Got {size}")
    size = min(size or DEFAULT_PAGE, LARGEST_PAGE)
    found = _sorted([item for item in items if _matches(item, criteria["filter"])], key, criteria)
    places = [item[IDS[key]] for item in found]
    start = places.index(after["key"]) if after.get("key") in places else 0
    answer = {key: [show(item) for item in found[start : start + size]], "total_size": len(found)}
    if start + size < len(found):
        token = json.dumps({"criteria": criteria, "key": places[start + size]})
        answer["next_page_token"] = base64.b64encode(token.encode()).decode()
    return shown(answer)


def _criteria(key: str, query: dict) -> dict:
    words = query.get("sort_by", "").lower().split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise Refused(400, f"Invalid input error: Received invalid sort by format {query['sort_by']!r}")
    if words and words[0] not in KEYS[key]:
        raise Refused(400, f"Invalid input error: Invalid sorting field: {words[0]!r}")
    by = words[0] if words else "created_at"
    return {"by": by, "desc": words[1:] == ["desc"], "filter": _predicates(key, query.get("filter", ""))}


def _sorted(items: list[dict], key: str, criteria: dict) -> list[dict]:
    order = lambda item: (item.get(criteria["by"], ""), item[IDS[key]])  # noqa: E731 - used once
    return sorted(items, key=order, reverse=criteria["desc"])


def _predicates(key: str, text: str) -> list:
    """Parses a filter, unescaped once more than HTTP requires (parseAPIFilter in list_request_util.go)."""
    if not text:
        return []
    decoded = urllib.parse.unquote_plus(text)
    try:
        filters = json.loads(decoded)
        (predicates,) = filters.values()
    except ValueError as error:
        raise Refused(400, f"Invalid input error: failed to parse valid filter from {text!r}") from error
    found = []
    for predicate in predicates:
        predicate = {{"stringValue": "string_value"}.get(name, name): value for name, value in predicate.items()}
        if set(filters) != {"predicates"} or set(predicate) != {"operation", "key", "string_value"}:
            raise Refused(400, f"Invalid input error: failed to parse valid filter: {sorted(predicate)}")
        operation = {1: "EQUALS", 2: "NOT_EQUALS"}.get(predicate["operation"], predicate["operation"])
        if operation not in ("EQUALS", "NOT_EQUALS") or predicate["key"] not in KEYS[key]:
            raise Refused(400, f"Invalid input error: no support for filtering on {predicate}")
        found.append([operation, predicate["key"], predicate["string_value"]])
    return found


def _matches(item: dict, predicates: list) -> bool:
    """Returns whether an item satisfies predicates, with SQL's comparison: NULL neither equals nor differs."""
    for operation, key, value in predicates:
        column = item.get(key)
        if column is None or (column == value) != (operation == "EQUALS"):
            return False
    return True


@contextlib.contextmanager
def serving(double: Double, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serves the double on a port of this machine; yields its address."""
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
            request = Request({key: values[0] for key, values in parse_qs(address.query).items()})
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if "multipart" in self.headers.get("Content-Type", ""):
                request.upload = raw.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0].decode()
                request.filename = re.search(rb'filename="([^"]*)"', raw)[1].decode()
            elif raw:
                request.body = json.loads(raw)
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                told = double.answer(self.command, address.path.removeprefix(PREFIX), request, token)
                self._send(200, "application/json", json.dumps(told))
            except Refused as refused:
                self._send(refused.status, *refused.body())

        do_GET = do_POST = do_DELETE = _serve

        def _send(self, status: int, kind: str, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
