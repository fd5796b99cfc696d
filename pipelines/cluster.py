"""`--target cluster`: runs of Kubeflow Pipelines, triggered and watched over its API.

KFP's own client does the talking; here is what it lacks: errors in one line, a run that is not started twice, and a
watch that outlives a restarting server and ends when a run is cancelled.
"""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.config.schema import ClusterConfig
from pipelines.cluster_client import Unreachable, asking, made_once, make_client
from pipelines.training import NAME

SUCCEEDED = ("SUCCEEDED", "SKIPPED")
FAILED = ("FAILED", "CANCELED")
UNWANTED = (*FAILED, "CANCELING")
SETTLED_SECONDS = 1.5
PAGE = 50

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterRun:
    """A run as the cluster tells of it.

    Attributes:
        id: Given by the server.
        name: Model and fingerprint: equal names mean equal pipeline, images, data and settings.
        state: PENDING, RUNNING, PAUSED, CANCELING, or how it ended: SUCCEEDED, SKIPPED, FAILED, CANCELED.
        link: Address in the web interface.
        created: When it was started, ISO 8601.
        error: Why it failed.
        steps: Step -> state.
    """

    id: str
    name: str
    state: str
    link: str
    created: str = ""
    error: str = ""
    steps: Mapping[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.state in SUCCEEDED + FAILED

    @property
    def succeeded(self) -> bool:
        return self.state in SUCCEEDED

    def plain(self) -> dict[str, Any]:
        """The run as JSON data."""
        return {**vars(self), "steps": dict(self.steps)}


def run_name(model: str, pipeline: str, arguments: Mapping[str, str]) -> str:
    """Name of a run: the model, and a fingerprint of the compiled pipeline (with its images), data and settings."""
    told = json.dumps([pipeline, dict(arguments)], sort_keys=True)
    return f"{model}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


class Cluster:
    """Kubeflow Pipelines at the address and in the namespace of the settings.

    Args:
        settings: The cluster's.
        sleep: Waits between two looks at a run.

    Raises:
        ClusterError: no address, no readable token, or the API refuses us.
    """

    def __init__(self, settings: ClusterConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self._sleep = sleep
        with asking(self.settings, "connect"):
            self._client = make_client(settings)

    def trigger(
        self, pipeline: str, arguments: Mapping[str, str], experiment: str, commit: str, force: bool = False
    ) -> tuple[ClusterRun, bool]:
        """Start a run, or find the one that already does or did the same.

        Args:
            pipeline: Compiled pipeline.
            arguments: Its arguments.
            experiment: Name of the experiment, created where it is missing.
            commit: Git commit that names the pipeline's version.
            force: Start even if an equal run is going on or has succeeded.

        Returns:
            (the run, whether it was started now).
        """
        name = run_name(arguments["name"], pipeline, arguments)
        with asking(self.settings, f"start {name}"):
            experiment_id = self._experiment(experiment)
            if not force and (known := self._equal_run(experiment_id, name)):
                return known, False
            pipeline_id, version_id = self._version(pipeline, commit)
            started = self._client.run_pipeline(
                experiment_id,
                name,
                params=dict(arguments),
                pipeline_id=pipeline_id,
                version_id=version_id,
                service_account=self.settings.service_account,
            )
            own = self._run(started)
            if force:
                return own, True
            # The server takes any number of runs of one name, so whoever triggers at the same moment starts one too.
            # Its times are whole seconds: once this one has passed, both see the same runs and keep the same one.
            self._sleep(SETTLED_SECONDS)
            first = self._equal_run(experiment_id, name) or own
            if first.id != own.id:
                self._client.terminate_run(own.id)
            return first, first.id == own.id

    def get(self, run_id: str) -> ClusterRun:
        """A run by its id."""
        with asking(self.settings, f"look at run {run_id}"):
            return self._run(self._client.get_run(run_id))

    def runs(self, limit: int) -> list[ClusterRun]:
        """Runs of the namespace, newest first."""
        with asking(self.settings, "list runs"):
            found = []
            for run in self._runs():
                if len(found) == limit:
                    break
                found.append(run)
            return found

    def cancel(self, run_id: str) -> None:
        """Ask for a run's end; its pods, and a TrainJob that they started, go with it."""
        with asking(self.settings, f"cancel run {run_id}"):
            self._client.terminate_run(run_id)

    def wait(self, run_id: str, report: Callable[[str, str], None] = lambda *_: None) -> ClusterRun:
        """Watch a run until it is over, however it ends.

        Args:
            run_id: The run.
            report: Called with (step, state) at every change.

        Raises:
            ClusterError: the API was gone for longer than `cluster.outage_seconds`, or refuses us.
        """
        known: dict[str, str] = {}
        silent = 0.0
        while True:
            try:
                run = self.get(run_id)
            except Unreachable as error:
                if silent >= self.settings.outage_seconds:
                    raise
                if not silent:
                    logger.warning("%s; trying again for %.0f s", error, self.settings.outage_seconds)
                silent += self.settings.poll_seconds
            else:
                silent = 0.0
                for step, state in run.steps.items():
                    if known.get(step) != state:
                        known[step] = state
                        report(step, state)
                if run.over:
                    return run
            self._sleep(self.settings.poll_seconds)

    def schedule(
        self, pipeline: str, arguments: Mapping[str, str], experiment: str, commit: str, cron: str, name: str
    ) -> str:
        """Start runs by the clock (six fields, seconds first); a schedule of the same name is replaced.

        Returns:
            The schedule's id.
        """
        with asking(self.settings, f"schedule {name}"):
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

    def _equal_run(self, experiment_id: str, name: str) -> ClusterRun | None:
        """The first of the runs of this name that are going on or have succeeded."""
        found = [run for run in self._runs(experiment_id=experiment_id, name=name) if run.state not in UNWANTED]
        return min(found, key=lambda run: (run.created, run.id), default=None)

    def _experiment(self, name: str) -> str:
        """The id of the experiment, created where it is missing."""

        def get() -> Any:
            return self._client.create_experiment(name, namespace=self.settings.namespace)  # asks before it creates

        return made_once(get, get).experiment_id

    def _version(self, pipeline: str, commit: str) -> tuple[str, str]:
        """(pipeline id, version id) of this very text, uploaded where it is missing."""
        version = f"{commit[:12]}-{hashlib.sha256(pipeline.encode()).hexdigest()[:8]}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{NAME}.yaml"
            path.write_text(pipeline, "utf-8")
            upload, add = self._client.upload_pipeline, self._client.upload_pipeline_version
            pipeline_id = self._client.get_pipeline_id(NAME) or made_once(
                lambda: upload(str(path), NAME, namespace=self.settings.namespace).pipeline_id,
                lambda: self._client.get_pipeline_id(NAME),
            )
            version_id = self._version_id(pipeline_id, version) or made_once(
                lambda: add(str(path), version, pipeline_id=pipeline_id).pipeline_version_id,
                lambda: self._version_id(pipeline_id, version),
            )
            return pipeline_id, version_id

    def _version_id(self, pipeline_id: str, version: str) -> str:
        listed = self._client.list_pipeline_versions(pipeline_id, page_size=PAGE, filter=_named(version))
        return next((known.pipeline_version_id for known in listed.pipeline_versions or ()), "")

    def _runs(self, experiment_id: str | None = None, name: str = "") -> Iterator[ClusterRun]:
        pages = _pages(
            lambda token: self._client.list_runs(
                page_token=token,
                page_size=PAGE,
                sort_by="created_at desc",
                experiment_id=experiment_id,
                namespace=self.settings.namespace,
                filter=_named(name) if name else None,
            )
        )
        for page in pages:
            yield from (self._run(item) for item in page.runs or ())

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
                    "status": item.status or "",
                }

    def _run(self, item: Any) -> ClusterRun:
        tasks = item.run_details.task_details if item.run_details else None
        steps = {task.display_name: task.state for task in tasks or () if task.state}
        base = (self.settings.ui_host or self.settings.host or self._client._get_url_prefix()).rstrip("/")
        return ClusterRun(
            id=item.run_id,
            name=item.display_name,
            state=item.state or "PENDING",
            link=f"{base}/#/runs/details/{item.run_id}",
            created=item.created_at.isoformat(timespec="seconds") if item.created_at else "",
            error=item.error.message or "" if item.error else "",
            steps={step: state for step, state in steps.items() if not step.endswith("-driver") and step != "root"},
        )


def _pages(ask: Callable[[str], Any]) -> Iterator[Any]:
    token = ""
    while True:
        page = ask(token)
        yield page
        token = page.next_page_token or ""
        if not token:
            return


def _named(name: str) -> str:
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})
