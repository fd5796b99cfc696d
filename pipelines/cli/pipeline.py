"""`myxtts pipeline`: runs on this machine, in its containers or on a cluster: start them, look at them, end them."""

import json
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from components.state import State
from pipelines.cli.options import (
    PATH,
    Command,
    chosen_project,
    json_option,
    project_options,
    settings_files,
)
from pipelines.run_records import RunError, RunRecord, all_runs, find_run

TARGETS = ("local", "docker", "cluster")


def target_options(
    default: str = "local", settings: Callable[[Command], Command] = settings_files
) -> Callable[[Command], Command]:
    """Decorator: `--target`, where a cluster is, and settings."""

    def decorate(command: Command) -> Command:
        command = settings(command)
        command = click.option("--namespace", default="", help="Namespace of the runs [cluster.namespace].")(command)
        command = click.option("--host", default="", help="Address of Kubeflow Pipelines [cluster.host].")(command)
        return click.option("--target", type=click.Choice(TARGETS), default=default, show_default=True)(command)

    return decorate


def refuse_here(target: str, **options: Any) -> None:
    """Refuse options that only a cluster would heed.

    Raises:
        click.UsageError: the target is this machine, and one of them is given.
    """
    given = [name for name, value in options.items() if value]
    if target != "cluster" and given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{flags}: only --target cluster heeds it")


@click.group()
def pipeline() -> None:
    """Training pipelines: processes of this machine, its containers, or a cluster."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")


@pipeline.command(name="compile")
@target_options(default="cluster")
@click.option("--format", "form", type=click.Choice(["kfp", "kubernetes"]), default="kfp", show_default=True)
@click.option("--output", type=PATH, help="File to write [default: stdout].")
def compile_command(form: str, output: Path | None, **where: Any) -> None:
    """Write the pipeline as Kubeflow Pipelines takes it, or as Kubernetes objects for a GitOps repository."""
    from components.lineage import git_state
    from pipelines.compiling import compile_training, manifests

    refuse_here(where["target"], host=where["host"], namespace=where["namespace"])
    profile, config = _profile(where)
    if form == "kubernetes" and profile.cluster is None:
        raise click.UsageError("--format kubernetes needs --target cluster")
    if form == "kubernetes":
        text = manifests(profile, config.cluster.namespace, git_state(Path(__file__).parent)["git.sha"])
    else:
        text = compile_training(profile)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"{output}: {len(text.splitlines())} lines", err=True)


@pipeline.command()
@target_options(settings=project_options)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Watch a cluster's run until it is over.")
@click.option("--force", is_flag=True, help="Start on the cluster even if an equal run is going on or succeeded.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's record as JSON.")
def run(wait: bool, force: bool, as_json: bool, **where: Any) -> None:
    """Run the pipeline on data that `dvc repro` has made and `dvc push` has pushed.

    Exit status: 0 it succeeded (or, with --no-wait, was started), 1 it failed or was cancelled, 2 it was not started.
    """
    from pipelines.cli.console import Console
    from pipelines.local import PipelineError, run_training
    from pipelines.targets import make_target

    refuse_here(where["target"], host=where["host"], namespace=where["namespace"], no_wait=not wait, force=force)
    project = _project(**where)
    console = Console()
    if where["target"] == "cluster":
        _run_on_cluster(project, console, wait, force, as_json)
        return
    target = make_target(where["target"], project.config)
    try:
        record = run_training(
            project.state, project.run_arguments(), project.lineage, console.report, console.output, target
        )
    except PipelineError as error:
        if as_json:
            click.echo(json.dumps(error.record.plain(), indent=1))
        raise
    if as_json:
        click.echo(json.dumps(record.plain(), indent=1))


def _run_on_cluster(project: Any, console: Any, wait: bool, force: bool, as_json: bool) -> None:
    from pipelines.cluster import OVERLAP_SECONDS, SETTLED_SECONDS, Cluster
    from pipelines.compiling import compile_training
    from pipelines.profiles import cluster_profile

    text = compile_training(cluster_profile(project.config))
    project.require_pushed()
    cluster = Cluster(project.config.cluster, records=_records(project.state))
    commit = project.lineage("")["git.sha"]
    # Whoever does not stay to watch looks longer for a run that somebody else started at the same moment.
    linger = SETTLED_SECONDS if wait else OVERLAP_SECONDS
    found, started = cluster.trigger(
        text, project.run_arguments(), project.config.corpus.name, commit, force, linger=linger
    )
    click.echo(f"{'started' if started else 'known already'}: {found.name}\n{found.link}", err=True)
    if wait and not found.over:
        found = cluster.wait(
            found.id, lambda step, state: console.output(f"{step}: {state.lower()}"), unique=started and not force
        )
    _show(_with_reason(cluster, found), as_json)
    if found.over and not found.succeeded:
        raise SystemExit(1)


@pipeline.command(name="list")
@target_options()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Newest runs shown.")
@json_option
def list_command(limit: int, as_json: bool, **where: Any) -> None:
    """Runs, newest first."""
    if where["target"] == "cluster":
        found = _cluster(where).runs(limit)
        lines = [f"{item.id}  {item.created}  {item.state:<10} {item.name}" for item in found]
    else:
        _refuse_where(where)
        found = all_runs(State.locate())[:limit]
        lines = [_line(item) for item in found]
    if as_json:
        click.echo(json.dumps([item.plain() for item in found], indent=1))
    else:
        click.echo("\n".join(lines) or "no runs yet; `myxtts run` makes the first")


def _line(record: RunRecord) -> str:
    return f"{record.id}  {record.state:<11} {record.seconds:8.1f} s  {record.arguments['name']}  {record.progress}"


@pipeline.command()
@click.argument("run_id", required=False)
@target_options()
@json_option
def status(run_id: str | None, as_json: bool, **where: Any) -> None:
    """How a run went (default: the newest); exits 1 when it failed."""
    if where["target"] == "cluster":
        cluster = _cluster(where)
        found = cluster.get(run_id) if run_id else next(iter(cluster.runs(1)), None)
        if found is None:
            raise RunError("no run yet; `myxtts pipeline run --target cluster` makes the first")
        found = _with_reason(cluster, found)
        _show(found, as_json)
        failed = found.over and not found.succeeded
    else:
        _refuse_where(where)
        record = find_run(State.locate(), run_id)
        failed = record.state in ("failed", "interrupted")
        if as_json:
            click.echo(json.dumps(record.plain(), indent=1))
        else:
            started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started))
            click.echo(f"{record.id}: {record.state}, started {started}, {record.seconds:.1f} s, {record.target}")
            for name, step in record.steps.items():
                message = step.message.replace("\n", "\n    ")
                click.echo(f"  {name:<16} {step.state:<11} {step.seconds:8.1f} s  {message}".rstrip())
            click.echo(f"log: {record.folder / 'log.txt'}")
    if failed:
        raise SystemExit(1)


@pipeline.command()
@click.argument("run_id", required=False)
@target_options()
def cancel(run_id: str | None, **where: Any) -> None:
    """End a run (here, default: the newest).

    Here, training saves itself first. On a cluster, the run is terminated, its TrainJobs are deleted, and the command
    waits until its pods have ended; training goes on from its last checkpoint when it is started again.
    """
    if where["target"] == "cluster":
        if not run_id:
            raise click.UsageError("which run? `myxtts pipeline list --target cluster` shows them")
        _cancel_on_cluster(_cluster(where), run_id)
        return
    _refuse_where(where)
    record = find_run(State.locate(), run_id)
    if record.state != "running":
        raise RunError(f"{record.id} is not running: {record.state}; `myxtts pipeline list` shows what is")
    os.kill(record.process, signal.SIGTERM)  # a run started in the background of a script ignores interrupts
    click.echo(f"asked for the end of {record.id}")


def _cancel_on_cluster(cluster: Any, run_id: str) -> None:
    from components.kube import KubeError
    from pipelines.stopping import delete_trainjobs, wait_until_stopped

    found = cluster.cancel(run_id)
    click.echo(f"{run_id} is over: {found.state}" if found.over else f"asked for the end of {run_id}")
    namespace = cluster.workflow_namespace
    try:
        trainjobs = delete_trainjobs(namespace, run_id)
        for name in trainjobs:
            click.echo(f"deleted its TrainJob {name}")
        left = wait_until_stopped(namespace, run_id, trainjobs)
    except KubeError as error:
        click.echo(
            f"its TrainJobs and pods cannot be looked after from here ({error}); where kubectl works: "
            f"kubectl -n {namespace} delete trainjobs -l pipeline/runid={run_id}",
            err=True,
        )
        raise SystemExit(1) from error
    if left:
        click.echo(f"still running in {namespace}: {', '.join(left)}", err=True)
        raise SystemExit(1)
    click.echo("its pods have ended")


@pipeline.command()
@click.argument("run_id", required=False)
@click.option("--step", default="", help="Only this step's (cluster).")
@target_options()
def logs(run_id: str | None, step: str, **where: Any) -> None:
    """What the steps of a run wrote (here, default: the newest)."""
    if where["target"] != "cluster":
        _refuse_where(where, step=step)
        click.echo((find_run(State.locate(), run_id).folder / "log.txt").read_text("utf-8"), nl=False)
        return
    if not run_id:
        raise click.UsageError("which run? `myxtts pipeline list --target cluster` shows them")
    from pipelines.pod_logs import pod_logs

    for label, line in pod_logs(_cluster(where).workflow_namespace, run_id, step):
        click.echo(f"{label}  {line}")


@pipeline.command()
@target_options(default="cluster", settings=project_options)
@click.option(
    "--cron", default="", help="When: second minute hour day month weekday, such as '0 0 3 * * *', or '@daily'."
)
@click.option("--name", default="", help="Name of the schedule [default: the model's].")
@click.option("--remove", is_flag=True, help="Remove the schedule of that name.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable list.")
def schedule(cron: str, name: str, remove: bool, as_json: bool, **where: Any) -> None:
    """Start runs by the clock, replace or remove a schedule; without --cron and --remove, list them."""
    if where["target"] != "cluster":
        raise click.UsageError("scheduling requires --target cluster; here, use cron with `myxtts pipeline run`")
    if not cron and not remove:
        found = _cluster(where).schedules()
        lines = [f"{item['name']}  {item['cron']}  {item['status']}  {item['id']}" for item in found]
        click.echo(json.dumps(found, indent=1) if as_json else "\n".join(lines) or "no schedules")
        return
    project = _project(**where)
    name = name or project.model_name
    if remove:
        if not _cluster(where).unschedule(name):
            raise RunError(f"no schedule is named {name}; `myxtts pipeline schedule` lists them")
        click.echo(f"removed {name}")
        return
    from pipelines.cluster import Cluster
    from pipelines.compiling import compile_training
    from pipelines.cron import next_times, parse_cron
    from pipelines.profiles import cluster_profile

    times = next_times(parse_cron(cron), datetime.now(UTC))
    text = compile_training(cluster_profile(project.config))
    project.require_pushed()
    click.echo("next runs, if the scheduler's clock is in UTC (CRON_SCHEDULE_TIMEZONE of the installation):", err=True)
    for at in times:
        click.echo(f"  {at:%a %Y-%m-%d %H:%M:%S}", err=True)
    arguments, experiment, commit = project.run_arguments(), project.config.corpus.name, project.lineage("")["git.sha"]
    made = Cluster(project.config.cluster).schedule(text, arguments, experiment, commit, cron, name)
    click.echo(f"{name}: {cron}  {made}")


def _refuse_where(where: dict[str, Any], **options: Any) -> None:
    """What says which cluster is meant says nothing about the runs of this machine."""
    named = {name: where[name] for name in ("host", "namespace")}
    refuse_here(where["target"], **named, config=where["config_file"], set=where["assignments"], **options)


def _project(target: str, host: str, namespace: str, **chosen: Any) -> Any:
    return chosen_project(**chosen, **{"cluster.host": host, "cluster.namespace": namespace})


def _settings(where: dict[str, Any]) -> Any:
    from pipelines.cli.settings import load_settings

    named = {"cluster.host": where["host"], "cluster.namespace": where["namespace"]}
    given = {key: value for key, value in named.items() if value}
    return load_settings(None, where["config_file"], where["assignments"], given).config


def _profile(where: dict[str, Any]) -> tuple[Any, Any]:
    from pipelines.profiles import cluster_profile
    from pipelines.targets import make_target

    config = _settings(where)
    if where["target"] == "cluster":
        return cluster_profile(config), config
    return make_target(where["target"], config).profile, config


def _cluster(where: dict[str, Any]) -> Any:
    from components.state import StateError
    from pipelines.cluster import Cluster

    try:
        records = _records(State.locate())
    except StateError:  # looking at runs needs no project
        records = None
    return Cluster(_settings(where).cluster, records=records)


def _records(state: State) -> Path:
    """Folder that holds which runs of a cluster were cancelled from here."""
    return state.root / "cancelled"


def _with_reason(cluster: Any, found: Any) -> Any:
    """A failed run with the reason that its step wrote into its log, where the Kubernetes API can be asked."""
    if found.state != "FAILED" or not found.failed_step:
        return found
    from components.kube import KubeError
    from pipelines.pod_logs import failure_reason

    try:
        why = failure_reason(cluster.workflow_namespace, found.id, found.failed_step)
    except KubeError:
        why = ""
    hint = f"`myxtts pipeline logs {found.id} --target cluster --step {found.failed_step}` shows its log"
    return replace(found, error=f"{found.error}: {why or hint}")


def _show(found: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.plain(), indent=1))
        return
    click.echo(f"{found.id}: {found.state}, started {found.created}\n{found.link}")
    for step in found.steps:
        click.echo(f"  {step:<16} {found.progress(step).lower()}")
    if found.error:
        click.echo(f"error: {found.error}")
