"""`--target cluster`: runs of Kubeflow Pipelines, triggered and watched over its API.

KFP's own client sends the requests. This module adds errors of one line, runs that are not started twice, steps by
their own names, and a watch that outlives a restarting server and ends when a run is cancelled.
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

from model.config.targets import ClusterConfig
from pipelines.argo_nodes import step_statuses
from pipelines.cluster_client import (
    Server,
    Unreachable,
    ask_server,
    asking,
    check_server,
    made_once,
    make_client,
    uploading,
)
from pipelines.cron import parse_cron
from pipelines.training_pipeline import NAME

SUCCEEDED = ("SUCCEEDED", "SKIPPED")
FAILED = ("FAILED", "CANCELED")
UNWANTED = (*FAILED, "CANCELING")
SETTLED_SECONDS = 1.5
OVERLAP_SECONDS = 10.0
"""A run can be listed this long after its time of creation: the server writes its row once the workflow exists."""
PAGE = 50

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterRun:
    """A run as the cluster reports it.

    Attributes:
        id: Given by the server.
        name: Model and fingerprint: equal names mean equal pipeline, images, data and settings.
        state: PENDING, RUNNING, PAUSED, CANCELING, or how it ended: SUCCEEDED, SKIPPED, FAILED, CANCELED.
        link: Address in the web interface.
        created: When it was started, ISO 8601.
        error: Which step failed; `pod_logs.failure_reason` knows why.
        experiment: Id of its experiment.
        schedule: Id of the schedule that started it; empty when a person or a program did.
        steps: Step -> state, in the order in which they started.
        attempts: Step -> pods that it has had, of steps that were not served from the cache.
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
        """The step that failed; empty if none did."""
        return next((step for step, state in self.steps.items() if state == "FAILED"), "")

    def progress(self, step: str) -> str:
        """State of a step, with the number of its attempt from the second one on."""
        attempt = self.attempts.get(step, 0)
        return self.steps[step] + (f" (attempt {attempt})" if attempt > 1 else "")

    def plain(self) -> dict[str, Any]:
        """The run as JSON data."""
        return {**vars(self), "steps": dict(self.steps), "attempts": dict(self.attempts)}


def run_name(model: str, pipeline: str, arguments: Mapping[str, str]) -> str:
    """Name of a run: the model, and a fingerprint of the compiled pipeline (with its images), data and settings."""
    settings = json.dumps([pipeline, dict(arguments)], sort_keys=True)
    return f"{model}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


class Cluster:
    """Kubeflow Pipelines at the address and in the namespace of the settings.

    Args:
        settings: The cluster's.
        sleep: Waits between two looks at a run.
        records: Folder in which it is recorded what was cancelled from here: the server reports such runs as failed,
            and its history shows the cancellation only if it looked at the run in between.

    Raises:
        ClusterError: no address, no readable token, or the API refuses us.
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
        """The installation's mode and release."""
        with asking(self.settings, "ask for the server's release"):
            return ask_server(self._client)

    @property
    def workflow_namespace(self) -> str:
        """Where pods and TrainJobs of runs are: a single-user installation executes them where it runs itself."""
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
        """Start a run, or find the one that already does or did the same.

        Args:
            pipeline: Compiled pipeline.
            arguments: Its arguments.
            experiment: Name of the experiment, created where it is missing.
            commit: Git commit that names the pipeline's version.
            force: Start even if an equal run is going on or has succeeded.
            linger: Seconds in which to look for an equal run that was started at the same moment; `wait` goes on
                looking.

        Returns:
            (the run, whether it was started now).

        Raises:
            ClusterError: the server does not fit the settings, or refuses.
        """
        name = run_name(arguments["name"], pipeline, arguments)
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
        import kfp_server_api

        pipeline_id, version_id = self._version(pipeline, commit)
        try:
            return self._create_run(experiment_id, name, arguments, pipeline_id, version_id)
        except kfp_server_api.ApiException as error:
            # A version that was deleted in between is an internal error of the server.
            if error.status != 500 or self._version(pipeline, commit) == (pipeline_id, version_id):
                raise
            logger.warning("version %s of the pipeline was deleted a moment ago; uploaded again", version_id)
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
        """The first of the runs of this name; if that is another one, `own` is withdrawn.

        The server takes any number of runs of one name, so whoever triggers at the same moment starts one too. All
        triggers order them alike, and the first of all is never withdrawn, however late it is listed.
        """
        found = self._wanted(own.experiment, own.name)
        first = min((own, *found), key=_order)
        if first.id != own.id:
            self._terminate(own.id)
        return first

    def get(self, run_id: str) -> ClusterRun:
        """A run by its id."""
        with asking(self.settings, f"look at run {run_id}"):
            return self._run(self._client.get_run(run_id))

    def runs(self, limit: int) -> list[ClusterRun]:
        """Runs of the namespace, newest first."""
        with asking(self.settings, "list runs"):
            return [self._run(item) for item in islice(self._items(), limit)]

    def cancel(self, run_id: str) -> ClusterRun:
        """End a run, and record that it was asked for; its TrainJobs are deleted by `run_pods.delete_trainjobs`.

        Returns:
            The run as it was found; if it is over, nothing was done.
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
        """Terminate a run that may be over or terminated already, which the server answers with 400."""
        import kfp_server_api

        try:
            self._client.terminate_run(run_id)
        except kfp_server_api.ApiException as error:
            if error.status != 400 or self._client.get_run(run_id).state not in (*SUCCEEDED, *UNWANTED):
                raise

    def wait(
        self, run_id: str, report: Callable[[str, str], None] = lambda *_: None, unique: bool = False
    ) -> ClusterRun:
        """Watch a run until it is over, however it ends.

        Args:
            run_id: The run.
            report: Called with (step, state) at every change.
            unique: Withdraw the run, and watch the other, once an equal one turns out to have been started before it.

        Raises:
            ClusterError: the API was gone for longer than `cluster.outage_seconds`, or refuses us.
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
                    logger.warning("%s; trying again for %.0f s", error, self.settings.outage_seconds)
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
        with asking(self.settings, f"look for runs equal to {run.id}"):
            return self._first(run)

    def schedule(
        self, pipeline: str, arguments: Mapping[str, str], experiment: str, commit: str, cron: str, name: str
    ) -> str:
        """Start runs by the clock; a schedule of the same name is replaced.

        Args:
            pipeline, arguments, experiment, commit: As in `trigger`.
            cron: Six fields, seconds first, or a descriptor such as `@daily`.
            name: Of the schedule.

        Returns:
            The schedule's id.

        Raises:
            CronError: the server would refuse `cron`, or read it as something else.
            ClusterError: the server does not fit the settings, or refuses.
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
            for item in old:  # the server cannot change one, and two would run everything twice
                self._client.delete_recurring_run(item)
            return made.recurring_run_id

    def schedules(self) -> list[dict[str, str]]:
        """Schedules of the namespace: `id`, `name`, `cron` and `status`."""
        with asking(self.settings, "list schedules"):
            return list(self._schedules())

    def unschedule(self, name: str) -> int:
        """Remove the schedules of this name; returns how many there were."""
        with asking(self.settings, f"remove schedule {name}"):
            found = [item["id"] for item in self._schedules() if item["name"] == name]
            for item in found:
                self._client.delete_recurring_run(item)
            return len(found)

    def _equal_run(
        self, experiment_id: str, name: str, pipeline: str, arguments: Mapping[str, str]
    ) -> ClusterRun | None:
        """The first of the equal runs that are going on or have succeeded.

        Runs of a schedule are named after their workflow: they are equal by their arguments and pipeline version.
        """
        found = self._wanted(experiment_id, name)
        for item in self._items(experiment_id=experiment_id, where=("NOT_EQUALS", "recurring_run_id", "")):
            run, config = self._run(item), item.runtime_config
            same = config is not None and config.parameters == dict(arguments)
            if same and run.state not in UNWANTED and self._is_of(item.pipeline_version_reference, pipeline):
                found.append(run)
        return min(found, key=_order, default=None)

    def _is_of(self, source: Any, pipeline: str) -> bool:
        """Whether a version of the pipeline, as a run refers to it, is of this text."""
        import kfp_server_api

        if source is None:
            return False
        try:
            version = self._client.get_pipeline_version(source.pipeline_id, source.pipeline_version_id)
        except kfp_server_api.ApiException as error:
            if error.status != 404:  # deleted since: what the run did cannot be told any more
                raise
            return False
        return version.display_name.endswith(f"-{_fingerprint(pipeline)}")

    def _wanted(self, experiment_id: str, name: str) -> list[ClusterRun]:
        """Runs of this name that are going on or have succeeded."""
        runs = map(self._run, self._items(experiment_id=experiment_id, where=("EQUALS", "display_name", name)))
        return [run for run in runs if run.state not in UNWANTED]

    def _experiment(self, name: str) -> str:
        """The id of the experiment, created where it is missing."""
        import kfp_server_api

        namespace = self.settings.namespace

        def find() -> str:
            listed = self._client.list_experiments(page_size=PAGE, namespace=namespace, filter=_named(name))
            return next((item.experiment_id for item in listed.experiments or ()), "")

        def make() -> str:
            wanted = kfp_server_api.V2beta1Experiment(display_name=name, namespace=namespace)
            return self._client._experiment_api.experiment_service_create_experiment(experiment=wanted).experiment_id

        return find() or made_once(make, find)

    def _version(self, pipeline: str, commit: str) -> tuple[str, str]:
        """(pipeline id, version id) of this very text, uploaded where it is missing."""
        version = f"{commit[:12]}-{_fingerprint(pipeline)}"
        with tempfile.TemporaryDirectory() as folder, uploading(self.settings):
            path = Path(folder) / f"{NAME}.yaml"
            path.write_text(pipeline, "utf-8")
            upload, add = self._client.upload_pipeline, self._client.upload_pipeline_version
            pipeline_id = self._pipeline_id() or made_once(
                lambda: upload(str(path), NAME, namespace=self.settings.namespace).pipeline_id, self._pipeline_id
            )
            version_id = self._version_id(pipeline_id, version) or made_once(
                lambda: add(str(path), version, pipeline_id=pipeline_id).pipeline_version_id,
                lambda: self._version_id(pipeline_id, version),
            )
            return pipeline_id, version_id

    def _pipeline_id(self) -> str:
        """The pipeline's id in our namespace: without one, the server lists only those shared by all."""
        listed = self._client.list_pipelines(page_size=PAGE, namespace=self.settings.namespace, filter=_named(NAME))
        return next((known.pipeline_id for known in listed.pipelines or ()), "")

    def _version_id(self, pipeline_id: str, version: str) -> str:
        listed = self._client.list_pipeline_versions(pipeline_id, page_size=PAGE, filter=_named(version))
        return next((known.pipeline_version_id for known in listed.pipeline_versions or ()), "")

    def _items(self, experiment_id: str | None = None, where: tuple[str, str, str] | None = None) -> Iterator[Any]:
        """Runs as the server lists them, newest first, that a predicate (operation, key, text) holds for."""
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
        """Whether a run that failed was cancelled: the server's history says it, or our own record."""
        before = [status.state for status in item.state_history or () if status.state != "FAILED"]
        asked = self._records is not None and (self._records / item.run_id).exists()
        return asked or before[-1:] == ["CANCELING"]


def _error(item: Any, run: ClusterRun) -> str:
    """Which step failed; the server itself only reports errors in its own records."""
    if item.error and item.error.message:
        return item.error.message
    if not (step := run.failed_step):
        return "no step failed: see the run's page"
    attempts = run.attempts.get(step, 0)
    return f"step {step} failed" + (f" in {attempts} attempts" if attempts > 1 else "")


def _order(run: ClusterRun) -> tuple[str, str]:
    return run.created, run.id


def _fingerprint(pipeline: str) -> str:
    return hashlib.sha256(pipeline.encode()).hexdigest()[:8]


def _pages(ask: Callable[[str], Any]) -> Iterator[Any]:
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
    """A filter, escaped once: the server unescapes filters once more than HTTP does, so that + and % would be lost."""
    return quote(json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": text}]}))
