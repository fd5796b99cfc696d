"""`--target cluster`: starts, watches and schedules runs of Kubeflow Pipelines over its API, with KFP's client.

Equal runs are started only once, steps have the names of the pipeline definition, and watching a run survives a
restart of the server.
"""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from model.config.targets import ClusterConfig
from pipelines.argo_nodes import step_statuses
from pipelines.cluster_client import (
    Server,
    Unreachable,
    ask_server,
    asking,
    check_server,
    create_once,
    make_client,
    uploading,
)
from pipelines.compiling import YamlLoader
from pipelines.cron import parse_cron

SUCCEEDED = ("SUCCEEDED", "SKIPPED")
FAILED = ("FAILED", "CANCELED")
UNWANTED = (*FAILED, "CANCELING")
SETTLED_SECONDS = 1.5
"""Time between the start of a run and a look for equal runs that were started at the same moment."""
OVERLAP_SECONDS = 10.0
"""Longest delay until a new run is listed: the server stores it once the workflow exists."""
PAGE = 50
"""Number of objects in one answer of the server."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClusterRun:
    """A run as the cluster reports it.

    Attributes:
        id: Id from the server.
        name: Model and hash; equal names mean equal pipeline, images, data and settings.
        state: PENDING, RUNNING, PAUSED, CANCELING, SUCCEEDED, SKIPPED, FAILED or CANCELED.
        link: Address in the web interface.
        created: Start, ISO 8601.
        error: Which step failed; `run_pods.failure_reason` returns why.
        experiment: Id of its experiment.
        schedule: Id of the schedule that started it; '' if none did.
        steps: Step -> state, in the order in which they started.
        attempts: Step -> number of its pods so far, for steps that were not taken from the cache.
    """

    id: str
    name: str
    state: str
    link: str
    created: str = ""
    error: str = ""
    experiment: str = ""
    schedule: str = ""
    steps: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.state in SUCCEEDED + FAILED

    @property
    def succeeded(self) -> bool:
        return self.state in SUCCEEDED

    @property
    def failed_step(self) -> str:
        """The step that failed; '' if none did."""
        return next((step for step, state in self.steps.items() if state == "FAILED"), "")

    def progress(self, step: str) -> str:
        """Returns the state of a step, with the number of the attempt if it is not the first."""
        attempt = self.attempts.get(step, 0)
        return self.steps[step] + (f" (attempt {attempt})" if attempt > 1 else "")

    def plain(self) -> dict[str, Any]:
        """Returns the run as JSON data."""
        return {**vars(self), "steps": dict(self.steps), "attempts": dict(self.attempts)}


def _pipeline_name(pipeline: str) -> str:
    """Returns the name of a compiled pipeline."""
    name: str = next(iter(yaml.load_all(pipeline, YamlLoader)))["pipelineInfo"]["name"]
    return name


def run_name(subject: str, pipeline: str, arguments: Mapping[str, str]) -> str:
    """Returns the name of a run: model or study, and a hash of pipeline (with its images), data and settings."""
    settings = json.dumps([pipeline, dict(arguments)], sort_keys=True)
    return f"{subject}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


class Cluster:
    """Kubeflow Pipelines at the address and in the namespace of the settings.

    Args:
        settings: Settings of the cluster.
        sleep: Function that waits between two requests for the status of a run.
        records: Folder that records which runs were cancelled from this machine. The server reports them as failed, and
            its history shows a cancellation only if the server checked the run before it ended.

    Raises:
        ClusterError: the address or the token is missing, or the API refuses it.
    """

    def __init__(
        self, settings: ClusterConfig, sleep: Callable[[float], None] = time.sleep, records: Path | None = None
    ) -> None:
        self.settings = settings
        self._sleep = sleep
        self._records = records
        with asking(self.settings, "connect"):
            self._client = make_client(settings)

    @cached_property
    def server(self) -> Server:
        """Mode and release of the installation."""
        with asking(self.settings, "get the server's release"):
            return ask_server(self._client)

    @property
    def workflow_namespace(self) -> str:
        """Namespace of pods and TrainJobs: a single-user installation executes them in its own namespace."""
        return self.settings.namespace if self.server.multi_user else self.settings.kfp_namespace

    def trigger(
        self,
        pipeline: str,
        arguments: Mapping[str, str],
        experiment: str,
        commit: str,
        force: bool = False,
        linger: float = SETTLED_SECONDS,
    ) -> tuple[ClusterRun, bool]:
        """Starts a run, or finds an equal one that is active or has succeeded.

        Args:
            pipeline: Compiled pipeline.
            arguments: Its arguments.
            experiment: Name of the experiment, created if it is missing.
            commit: Git commit that names the pipeline's version.
            force: Start even if there is an equal run.
            linger: Seconds in which to look for an equal run that was started at the same moment; `wait` continues
                the search.

        Returns:
            (the run, whether it was started now).

        Raises:
            ClusterError: the server does not fit the settings, or refuses the request.
        """
        name = run_name(arguments.get("study") or arguments["name"], pipeline, arguments)
        check_server(self.settings, self.server)
        with asking(self.settings, f"start {name}", changing=True):
            experiment_id = self._experiment(experiment)
            if not force and (known := self._equal_run(experiment_id, name, pipeline, arguments)):
                return known, False
            began = time.monotonic()
            own = self._start(pipeline, arguments, experiment_id, commit, name)
            if force:
                return own, True
            linger = max(linger, 2 * (time.monotonic() - began))
            while linger > 0:
                self._sleep(SETTLED_SECONDS)
                linger -= SETTLED_SECONDS
                if (first := self._first(own)).id != own.id:
                    return first, False
            return own, True

    def _start(
        self, pipeline: str, arguments: Mapping[str, str], experiment_id: str, commit: str, name: str
    ) -> ClusterRun:
        """Starts a run of the pipeline's version, which is uploaded if it is missing."""
        import kfp_server_api

        pipeline_id, version_id = self._version(pipeline, commit)
        try:
            return self._create_run(experiment_id, name, arguments, pipeline_id, version_id)
        except kfp_server_api.ApiException as error:
            # The server reports a version that was deleted meanwhile as an internal error.
            if error.status != 500 or self._version(pipeline, commit) == (pipeline_id, version_id):
                raise
            logger.warning("version %s of the pipeline was deleted meanwhile; uploading it again", version_id)
        return self._create_run(experiment_id, name, arguments, *self._version(pipeline, commit))

    def _create_run(
        self, experiment_id: str, name: str, arguments: Mapping[str, str], pipeline_id: str, version_id: str
    ) -> ClusterRun:
        started = self._client.run_pipeline(
            experiment_id,
            name,
            params=dict(arguments),
            pipeline_id=pipeline_id,
            version_id=version_id,
            service_account=self.settings.service_account,
        )
        return self._run(started)

    def _first(self, own: ClusterRun) -> ClusterRun:
        """Returns the first of the runs with the name of `own`; if that is another run, `own` is terminated.

        The server accepts several runs of one name, so clients that start a run at the same moment each get one. All
        clients sort the runs in the same way, and the first one is never terminated, however late it is listed.
        """
        found = self._wanted(own.experiment, own.name)
        first = min((own, *found), key=_order)
        if first.id != own.id:
            self._terminate(own.id)
        return first

    def get(self, run_id: str) -> ClusterRun:
        """Returns a run by its id."""
        with asking(self.settings, f"get the status of run {run_id}"):
            return self._run(self._client.get_run(run_id))

    def runs(self, limit: int) -> list[ClusterRun]:
        """Returns runs of the namespace, newest first."""
        with asking(self.settings, "list runs"):
            return [self._run(item) for item in islice(self._items(), limit)]

    def cancel(self, run_id: str) -> ClusterRun:
        """Terminates a run and records this; `run_pods.delete_trainjobs` deletes its TrainJobs.

        Returns:
            The run before the termination. A run that has ended is left as it is.
        """
        with asking(self.settings, f"cancel run {run_id}", changing=True):
            found = self._run(self._client.get_run(run_id))
            if found.over:
                return found
            if self._records is not None:
                self._records.mkdir(parents=True, exist_ok=True)
                (self._records / run_id).touch()
            self._terminate(run_id)
            return found

    def _terminate(self, run_id: str) -> None:
        """Terminates a run. One that has ended or is being terminated is left as it is (the server answers 400)."""
        import kfp_server_api

        try:
            self._client.terminate_run(run_id)
        except kfp_server_api.ApiException as error:
            if error.status != 400 or self._client.get_run(run_id).state not in (*SUCCEEDED, *UNWANTED):
                raise

    def wait(
        self, run_id: str, report: Callable[[str, str], None] = lambda *_: None, unique: bool = False
    ) -> ClusterRun:
        """Watches a run until it ends, and returns it.

        Args:
            run_id: The run.
            report: Called with (step, state) at every change.
            unique: If an equal run was started before this one, terminate this one and watch the other.

        Raises:
            ClusterError: the API did not answer for `cluster.outage_seconds`, or refuses a request.
        """
        known: dict[str, str] = {}
        silent = watched = 0.0
        while True:
            try:
                run = self.get(run_id)
                if unique and not run.over and watched <= OVERLAP_SECONDS:
                    run = self._settled(run)
                    run_id = run.id
            except Unreachable as error:
                if silent >= self.settings.outage_seconds:
                    raise
                if not silent:
                    logger.warning("%s; retrying for %.0f s", error, self.settings.outage_seconds)
                silent += self.settings.poll_seconds
            else:
                silent = 0.0
                for step in run.steps:
                    if known.get(step) != (state := run.progress(step)):
                        known[step] = state
                        report(step, state)
                if run.over:
                    return run
            watched += self.settings.poll_seconds
            self._sleep(self.settings.poll_seconds)

    def _settled(self, run: ClusterRun) -> ClusterRun:
        with asking(self.settings, f"find runs equal to {run.id}"):
            return self._first(run)

    def schedule(
        self, pipeline: str, arguments: Mapping[str, str], experiment: str, commit: str, cron: str, name: str
    ) -> str:
        """Creates a schedule of runs; it replaces a schedule of the same name.

        Args:
            pipeline, arguments, experiment, commit: As in `trigger`.
            cron: Six fields, seconds first, or a descriptor such as `@daily`.
            name: Name of the schedule.

        Returns:
            Id of the schedule.

        Raises:
            CronError: the server would refuse or misread `cron`.
            ClusterError: the server does not fit the settings, or refuses the request.
        """
        parse_cron(cron)
        check_server(self.settings, self.server)
        with asking(self.settings, f"schedule {name}", changing=True):
            experiment_id = self._experiment(experiment)
            pipeline_id, version_id = self._version(pipeline, commit)
            old = [item["id"] for item in self._schedules() if item["name"] == name]
            made = self._client.create_recurring_run(
                experiment_id,
                name,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                params=dict(arguments),
                pipeline_id=pipeline_id,
                version_id=version_id,
                service_account=self.settings.service_account,
            )
            for item in old:  # the server cannot change a schedule, and two would start everything twice
                self._client.delete_recurring_run(item)
            schedule_id: str = made.recurring_run_id
            return schedule_id

    def schedules(self) -> list[dict[str, str]]:
        """Returns the schedules of the namespace with `id`, `name`, `cron` and `status`."""
        with asking(self.settings, "list schedules"):
            return list(self._schedules())

    def unschedule(self, name: str) -> int:
        """Removes the schedules of this name and returns their number."""
        with asking(self.settings, f"remove schedule {name}"):
            found = [item["id"] for item in self._schedules() if item["name"] == name]
            for item in found:
                self._client.delete_recurring_run(item)
            return len(found)

    def _equal_run(
        self, experiment_id: str, name: str, pipeline: str, arguments: Mapping[str, str]
    ) -> ClusterRun | None:
        """Returns the first equal run that is active or has succeeded.

        Runs of a schedule are named after their workflow; their arguments and pipeline version are compared instead.
        """
        found = self._wanted(experiment_id, name)
        for item in self._items(experiment_id=experiment_id, where=("NOT_EQUALS", "recurring_run_id", "")):
            run, config = self._run(item), item.runtime_config
            same = config is not None and config.parameters == dict(arguments)
            if same and run.state not in UNWANTED and self._is_of(item.pipeline_version_reference, pipeline):
                found.append(run)
        return min(found, key=_order, default=None)

    def _is_of(self, source: Any, pipeline: str) -> bool:
        """Returns whether the pipeline version that a run refers to was uploaded from this text."""
        import kfp_server_api

        if source is None:
            return False
        try:
            version = self._client.get_pipeline_version(source.pipeline_id, source.pipeline_version_id)
        except kfp_server_api.ApiException as error:
            if error.status != 404:  # the version has been deleted, so nothing is known of it
                raise
            return False
        return str(version.display_name).endswith(f"-{_fingerprint(pipeline)}")

    def _wanted(self, experiment_id: str, name: str) -> list[ClusterRun]:
        """Returns the runs of this name that are active or have succeeded."""
        runs = map(self._run, self._items(experiment_id=experiment_id, where=("EQUALS", "display_name", name)))
        return [run for run in runs if run.state not in UNWANTED]

    def _experiment(self, name: str) -> str:
        """Returns the id of the experiment, which is created if it is missing."""
        import kfp_server_api

        namespace = self.settings.namespace

        def find() -> str:
            listed = self._client.list_experiments(page_size=PAGE, namespace=namespace, filter=_named(name))
            return next((item.experiment_id for item in listed.experiments or ()), "")

        def make() -> str:
            wanted = kfp_server_api.V2beta1Experiment(display_name=name, namespace=namespace)
            return self._client._experiment_api.experiment_service_create_experiment(experiment=wanted).experiment_id

        return find() or create_once(make, find)

    def _version(self, pipeline: str, commit: str) -> tuple[str, str]:
        """Returns (pipeline id, version id) of this text, which is uploaded if it is missing."""
        version, name = f"{commit[:12]}-{_fingerprint(pipeline)}", _pipeline_name(pipeline)
        with tempfile.TemporaryDirectory() as folder, uploading(self.settings):
            path = Path(folder) / f"{name}.yaml"
            path.write_text(pipeline, "utf-8")
            upload, add = self._client.upload_pipeline, self._client.upload_pipeline_version
            pipeline_id = self._pipeline_id(name) or create_once(
                lambda: upload(str(path), name, namespace=self.settings.namespace).pipeline_id,
                lambda: self._pipeline_id(name),
            )
            version_id = self._version_id(pipeline_id, version) or create_once(
                lambda: add(str(path), version, pipeline_id=pipeline_id).pipeline_version_id,
                lambda: self._version_id(pipeline_id, version),
            )
            return pipeline_id, version_id

    def _pipeline_id(self, name: str) -> str:
        """Returns the id of a pipeline in our namespace (the server otherwise lists only shared pipelines), or ''."""
        listed = self._client.list_pipelines(page_size=PAGE, namespace=self.settings.namespace, filter=_named(name))
        return next((known.pipeline_id for known in listed.pipelines or ()), "")

    def _version_id(self, pipeline_id: str, version: str) -> str:
        """Returns the id of a version by its name, or ''."""
        listed = self._client.list_pipeline_versions(pipeline_id, page_size=PAGE, filter=_named(version))
        return next((known.pipeline_version_id for known in listed.pipeline_versions or ()), "")

    def _items(self, experiment_id: str | None = None, where: tuple[str, str, str] | None = None) -> Iterator[Any]:
        """Yields the server's runs, newest first, for which a predicate (operation, key, text) is true."""
        pages = _pages(
            lambda token: self._client.list_runs(
                page_token=token,
                page_size=PAGE,
                sort_by="created_at desc",
                experiment_id=experiment_id,
                namespace=self.settings.namespace,
                filter=_filter(*where) if where else None,
            )
        )
        for page in pages:
            yield from page.runs or ()

    def _schedules(self) -> Iterator[dict[str, str]]:
        """Yields the schedules of the namespace."""
        pages = _pages(
            lambda token: self._client.list_recurring_runs(
                page_token=token, page_size=PAGE, namespace=self.settings.namespace
            )
        )
        for page in pages:
            for item in page.recurring_runs or ():
                cron = item.trigger.cron_schedule.cron if item.trigger and item.trigger.cron_schedule else ""
                yield {
                    "id": item.recurring_run_id,
                    "name": item.display_name,
                    "cron": cron,
                    "status": item.status or "not reported yet",
                }

    def _run(self, item: Any) -> ClusterRun:
        """Converts a run of KFP's client to a `ClusterRun`."""
        tasks = item.run_details.task_details if item.run_details else None
        steps = step_statuses(tasks or ())
        states = {step: status.state for step, status in steps.items()}
        attempts = {step: status.attempts for step, status in steps.items() if status.attempts}
        state = item.state or "PENDING"
        if state == "FAILED" and self._cancelled(item):
            state = "CANCELED"
        base = (self.settings.ui_host or self.settings.host or self._client._get_url_prefix()).rstrip("/")
        run = ClusterRun(
            id=item.run_id,
            name=item.display_name,
            state=state,
            link=f"{base}/#/runs/details/{item.run_id}",
            created=item.created_at.isoformat(timespec="seconds") if item.created_at else "",
            experiment=item.experiment_id or "",
            schedule=item.recurring_run_id or "",
            steps=states,
            attempts=attempts,
        )
        return replace(run, error=_error(item, run)) if state == "FAILED" else run

    def _cancelled(self, item: Any) -> bool:
        """Returns whether a failed run was cancelled, by the server's history or the record of this machine."""
        before = [status.state for status in item.state_history or () if status.state != "FAILED"]
        asked = self._records is not None and (self._records / item.run_id).exists()
        return asked or before[-1:] == ["CANCELING"]


def _error(item: Any, run: ClusterRun) -> str:
    """Returns which step failed. The server itself reports only errors of its own."""
    if item.error and item.error.message:
        return str(item.error.message)
    if not (step := run.failed_step):
        return "no step failed; see the page of the run"
    attempts = run.attempts.get(step, 0)
    return f"step {step} failed" + (f" in {attempts} attempts" if attempts > 1 else "")


def _order(run: ClusterRun) -> tuple[str, str]:
    """Returns the key by which all clients sort equal runs."""
    return run.created, run.id


def _fingerprint(pipeline: str) -> str:
    return hashlib.sha256(pipeline.encode()).hexdigest()[:8]


def _pages(ask: Callable[[str], Any]) -> Iterator[Any]:
    """Yields all pages of a list; `ask` requests the page of a token."""
    token = ""
    while True:
        page = ask(token)
        yield page
        token = page.next_page_token or ""
        if not token:
            return


def _named(name: str) -> str:
    return _filter("EQUALS", "display_name", name)


def _filter(operation: str, key: str, text: str) -> str:
    """Returns a filter, escaped once, since the server unescapes filters once more than HTTP requires."""
    return quote(json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": text}]}))
