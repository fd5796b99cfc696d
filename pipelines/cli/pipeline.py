"""`myxtts pipeline`: starts, lists, watches and cancels runs on this machine, in its containers or on a cluster."""

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from components.state import State
from pipelines.cli.options import (
    PATH,
    Command,
    chosen_project,
    json_option,
    load_settings,
    project_options,
    settings_files,
)
from pipelines.run_records import RunError, RunRecord, all_runs, find_run

if TYPE_CHECKING:
    from model.config.schema import Config
    from pipelines.cli.console import Console
    from pipelines.cluster import Cluster, ClusterRun
    from pipelines.profiles import Profile
    from pipelines.project import Project

TARGETS = ("local", "docker", "cluster")


def target_options(
    default: str = "local", settings: Callable[[Callable[..., Any]], Callable[..., Any]] = settings_files
) -> Callable[[Command], Command]:
    """Adds `--target`, the address and namespace of a cluster, and the options of `settings`."""
    add_namespace = click.option("--namespace", default="", help="Namespace of the runs [cluster.namespace].")
    add_host = click.option("--host", default="", help="Address of Kubeflow Pipelines [cluster.host].")
    add_target = click.option(
        "--target", type=click.Choice(TARGETS), default=default, show_default=True, help="Where the steps run."
    )

    def decorate(command: Command) -> Command:
        return cast(Command, add_target(add_host(add_namespace(settings(command)))))

    return decorate


def require_cluster(target: str, **options: Any) -> None:
    """Refuses options that have no effect on this machine.

    Raises:
        click.UsageError: one of them is given, and the target is not the cluster.
    """
    given = [name for name, value in options.items() if value]
    if target != "cluster" and given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{flags} requires --target cluster")


@click.group()
def pipeline() -> None:
    """Compile, run, watch and cancel training pipelines."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")


@pipeline.command(name="compile")
@target_options(default="cluster")
@click.option(
    "--format",
    "form",
    type=click.Choice(["kfp", "kubernetes"]),
    default="kfp",
    show_default=True,
    help="YAML of Kubeflow Pipelines, or Kubernetes objects.",
)
@click.option(
    "--pipeline",
    "which",
    type=click.Choice(["training", "study", "study-training"]),
    default="training",
    show_default=True,
    help="Training, a study, or a study and a training with its best settings.",
)
@click.option("--output", type=PATH, help="File to write [default: stdout].")
def compile_command(form: str, which: str, output: Path | None, **where: Any) -> None:
    """Compile a pipeline for Kubeflow Pipelines, or as Kubernetes objects for a GitOps repository."""
    from components.lineage import git_state
    from pipelines.compiling import compile_study, compile_training, manifests
    from pipelines.profiles import STEPS, study_steps

    require_cluster(where["target"], host=where["host"], namespace=where["namespace"])
    config = _settings(where)
    of_study, then_train = which != "training", which == "study-training"
    steps = study_steps(then_train) if of_study else STEPS
    profile, defaults = _profile(where["target"], config, steps), _page_defaults(config)
    if form == "kubernetes" and of_study:
        raise click.UsageError("--format kubernetes is for the training pipeline")
    if form == "kubernetes" and profile.cluster is None:
        raise click.UsageError("--format kubernetes needs --target cluster")
    if form == "kubernetes":
        text = manifests(profile, config.cluster.namespace, git_state(Path(__file__).parent)["git.sha"], defaults)
    elif of_study:
        text = compile_study(profile, config.study.workers, then_train)
    else:
        text = compile_training(profile, defaults)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"{output}: {len(text.splitlines())} lines", err=True)


@pipeline.command()
@target_options(settings=project_options)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Watch a run on the cluster until it ends.")
@click.option("--force", is_flag=True, help="Run every step, even if its result is cached or an equal run exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's record as JSON.")
def run(wait: bool, force: bool, as_json: bool, **where: Any) -> None:
    """Run the pipeline on data that `dvc repro` has made and `dvc push` has pushed.

    Exit status: 0 succeeded (with --no-wait: started), 1 failed or cancelled, 2 not started.
    """
    from pipelines.cli.console import Console
    from pipelines.local import PipelineError, make_target, run_training

    require_cluster(where["target"], host=where["host"], namespace=where["namespace"], no_wait=not wait)
    project = _project(**where)
    console = Console()
    if where["target"] == "cluster":
        from pipelines.compiling import compile_training
        from pipelines.profiles import cluster_profile

        profile = replace(cluster_profile(project.config), cached=not force)
        text = compile_training(profile, project.page_defaults())
        run_on_cluster(project, console, text, project.run_arguments, wait=wait, force=force, as_json=as_json)
        return
    target = make_target(where["target"], project.config, cached=not force)
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


def run_on_cluster(
    project: "Project",
    console: "Console",
    text: str,
    arguments: Callable[[], Mapping[str, str]],
    *,
    wait: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Starts a run of a compiled pipeline on the cluster, or finds an equal one, and watches it until it ends.

    Args:
        project: Project with the data, which must be pushed.
        console: Shows the steps.
        text: Compiled pipeline.
        arguments: Makes its arguments, once the data are known to be pushed.
        wait, force, as_json: Options of the command.
    """
    from pipelines.cluster import OVERLAP_SECONDS, SETTLED_SECONDS, Cluster
    from pipelines.retry_policy import retry_warning

    project.require_pushed()
    cluster = Cluster(project.config.cluster, records=_records(project.state))
    commit = project.lineage("")["git.sha"]
    # Without watching, equal runs that were started at the same moment can only be found here, which takes longer.
    linger = SETTLED_SECONDS if wait else OVERLAP_SECONDS
    found, started = cluster.trigger(text, arguments(), project.config.corpus.name, commit, force, linger=linger)
    click.echo(f"{'started' if started else 'an equal run exists'}: {found.name}\n{found.link}", err=True)
    if started and (warning := retry_warning(project.config.cluster)):
        click.echo(f"warning: {warning}", err=True)
    if wait and not found.over:
        found = cluster.wait(
            found.id, lambda step, state: console.output(f"{step}: {state.lower()}"), unique=started and not force
        )
    _show(_with_reason(cluster, found), as_json)
    if found.over and not found.succeeded:
        raise SystemExit(1)


@pipeline.command(name="list")
@target_options()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Number of runs to list.")
@json_option
def list_command(limit: int, as_json: bool, **where: Any) -> None:
    """List runs, newest first."""
    if where["target"] == "cluster":
        runs = _cluster(where).runs(limit)
        plain = [item.plain() for item in runs]
        lines = [f"{item.id}  {item.created}  {item.state:<10} {item.name}" for item in runs]
    else:
        refuse_cluster_options(where)
        records = all_runs(State.locate())[:limit]
        plain = [item.plain() for item in records]
        lines = [_line(item) for item in records]
    if as_json:
        click.echo(json.dumps(plain, indent=1))
    else:
        click.echo("\n".join(lines) or "no runs yet; `myxtts run` makes the first")


def _line(record: RunRecord) -> str:
    """Returns a run of this machine as one line."""
    return f"{record.id}  {record.state:<11} {record.seconds:8.1f} s  {record.subject}  {record.progress}"


@pipeline.command()
@click.argument("run_id", required=False)
@target_options()
@json_option
def status(run_id: str | None, as_json: bool, **where: Any) -> None:
    """Show the steps of a run [default: the newest]; exit 1 if it failed."""
    if where["target"] == "cluster":
        cluster = _cluster(where)
        found = cluster.get(run_id) if run_id else next(iter(cluster.runs(1)), None)
        if found is None:
            raise RunError("no run yet; `myxtts pipeline run --target cluster` makes the first")
        found = _with_reason(cluster, found)
        _show(found, as_json)
        failed = found.over and not found.succeeded
    else:
        refuse_cluster_options(where)
        show_status(find_run(State.locate(), run_id), as_json)
        return
    if failed:
        raise SystemExit(1)


def show_status(record: RunRecord, as_json: bool) -> None:
    """Prints the steps of a run of this machine; exit status 1 if it failed."""
    if as_json:
        click.echo(json.dumps(record.plain(), indent=1))
    else:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started))
        click.echo(f"{record.id}: {record.state}, started {started}, {record.seconds:.1f} s, {record.target}")
        for name, step in record.steps.items():
            message = (step.progress or step.message).replace("\n", "\n    ")
            click.echo(f"  {name:<16} {step.state:<11} {step.seconds:8.1f} s  {message}".rstrip())
        click.echo(f"log: {record.folder / 'log.txt'}")
    if record.state in ("failed", "interrupted"):
        raise SystemExit(1)


@pipeline.command()
@click.argument("run_id", required=False)
@target_options()
def cancel(run_id: str | None, **where: Any) -> None:
    """Cancel a run [default on this machine: the newest].

    On this machine, training saves a checkpoint first. On a cluster, the run is terminated, its TrainJobs are deleted,
    and the command waits until its pods have ended. The next run resumes training from the last checkpoint.
    """
    if where["target"] == "cluster":
        if not run_id:
            raise click.UsageError("which run? `myxtts pipeline list --target cluster` shows them")
        _cancel_on_cluster(_cluster(where), run_id)
        return
    refuse_cluster_options(where)
    cancel_run(find_run(State.locate(), run_id))


def cancel_run(record: RunRecord) -> None:
    """Cancels a run of this machine.

    Raises:
        RunError: it is not running.
    """
    if record.state != "running":
        raise RunError(f"{record.id} is not running: {record.state}; `myxtts pipeline list` shows what is")
    os.kill(record.process, signal.SIGTERM)  # a run started in the background of a script ignores SIGINT
    click.echo(f"cancelling {record.id}")


def _cancel_on_cluster(cluster: "Cluster", run_id: str) -> None:
    """Terminates a run, deletes its TrainJobs and waits until its pods have ended."""
    from components.kube import KubeError
    from pipelines.run_pods import delete_trainjobs, wait_until_stopped

    found = cluster.cancel(run_id)
    click.echo(f"{run_id} has ended: {found.state}" if found.over else f"cancelling {run_id}")
    namespace = cluster.workflow_namespace
    try:
        trainjobs = delete_trainjobs(namespace, run_id)
        for name in trainjobs:
            click.echo(f"deleted TrainJob {name}")
        left = wait_until_stopped(namespace, run_id, trainjobs)
    except KubeError as error:
        click.echo(
            f"its TrainJobs and pods cannot be reached from here ({error}); run this where kubectl works: "
            f"kubectl -n {namespace} delete trainjobs -l pipeline/runid={run_id}",
            err=True,
        )
        raise SystemExit(1) from error
    if left:
        click.echo(f"still running in {namespace}: {', '.join(left)}", err=True)
        raise SystemExit(1)
    click.echo("all its pods have ended")


@pipeline.command()
@click.argument("run_id", required=False)
@click.option("--step", default="", help="Only the log of this step (cluster).")
@target_options()
def logs(run_id: str | None, step: str, **where: Any) -> None:
    """Print the log of a run [default on this machine: the newest]: reports of the steps, then all their output."""
    if where["target"] != "cluster":
        refuse_cluster_options(where, step=step)
        print_logs(find_run(State.locate(), run_id))
        return
    if not run_id:
        raise click.UsageError("which run? `myxtts pipeline list --target cluster` shows them")
    from pipelines.run_pods import pod_logs

    for label, line in pod_logs(_cluster(where).workflow_namespace, run_id, step):
        click.echo(f"{label}  {line}")


def print_logs(record: RunRecord) -> None:
    """Prints the log of a run of this machine: reports of the steps, then all their output."""
    from pipelines.local import reported_lines

    log = (record.folder / "log.txt").read_text("utf-8")
    for line in reported_lines(log):
        click.echo(line)
    click.echo(f"\nall output of the steps and of Kubeflow Pipelines:\n{log}", nl=False)


@pipeline.command()
@target_options(default="cluster", settings=project_options)
@click.option(
    "--cron", default="", help="Six fields (second minute hour day month weekday), such as '0 0 3 * * *', or @daily."
)
@click.option("--name", default="", help="Name of the schedule [default: name of the model].")
@click.option("--remove", is_flag=True, help="Remove the schedule.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def schedule(cron: str, name: str, remove: bool, as_json: bool, **where: Any) -> None:
    """Make, replace or remove a schedule of runs; without --cron and --remove, list the schedules.

    Each run uses the data that are the newest when it starts: those that `myxtts corpus push` pushed last.
    """
    if where["target"] != "cluster":
        raise click.UsageError(
            "scheduling requires --target cluster; on this machine, use cron with `myxtts pipeline run`"
        )
    if not cron and not remove:
        found = _cluster(where).schedules()
        lines = [f"{item['name']}  {item['cron']}  {item['status']}  {item['id']}" for item in found]
        click.echo(json.dumps(found, indent=1) if as_json else "\n".join(lines) or "no schedules")
        return
    project = _project(**where)
    name = name or project.model_name
    if remove:
        if not _cluster(where).unschedule(name):
            raise RunError(f"there is no schedule {name}; `myxtts pipeline schedule` lists all")
        click.echo(f"removed {name}")
        return
    from pipelines.cluster import Cluster
    from pipelines.compiling import compile_training
    from pipelines.cron import next_times, parse_cron
    from pipelines.profiles import cluster_profile

    times = next_times(parse_cron(cron), datetime.now(UTC))
    text = compile_training(cluster_profile(project.config), project.page_defaults())
    arguments = project.run_arguments(latest=True)
    project.sync_dvc()
    pushed = project.push()  # so that there is a newest version
    click.echo(f"data: latest, now {pushed.data_hash} ({pushed.clips} clips)", err=True)
    click.echo("next runs, if the scheduler uses UTC (CRON_SCHEDULE_TIMEZONE of the installation):", err=True)
    for at in times:
        click.echo(f"  {at:%a %Y-%m-%d %H:%M:%S}", err=True)
    commit = project.lineage("")["git.sha"]
    made = Cluster(project.config.cluster).schedule(text, arguments, project.config.corpus.name, commit, cron, name)
    click.echo(f"{name}: {cron}  {made}")


def refuse_cluster_options(where: dict[str, Any], **options: Any) -> None:
    """Refuses options that select a cluster for commands about the runs of this machine."""
    named = {name: where[name] for name in ("host", "namespace")}
    require_cluster(where["target"], **named, config=where["config_file"], set=where["assignments"], **options)


def _project(target: str, host: str, namespace: str, **chosen: Any) -> "Project":
    return chosen_project(**chosen, overrides={"cluster.host": host, "cluster.namespace": namespace})


def _settings(where: dict[str, Any]) -> "Config":
    named = {"cluster.host": where["host"], "cluster.namespace": where["namespace"]}
    given = {key: value for key, value in named.items() if value}
    return load_settings(None, where["config_file"], where["assignments"], given).config


def _profile(target: str, config: "Config", steps: Sequence[str]) -> "Profile":
    """Returns the profile to compile for; images of this machine are named by tag, which needs no engine."""
    from pipelines.containers import docker_profile
    from pipelines.profiles import cluster_profile, local_profile

    if target == "cluster":
        return cluster_profile(config)
    return docker_profile(config, pinned=False) if target == "docker" else local_profile(config.launch, steps)


def _page_defaults(config: "Config") -> dict[str, str]:
    """Returns the arguments that the page suggests; the remote is empty if pods cannot reach that of the project."""
    from components import dvc
    from components.data_versions import LATEST
    from pipelines.project import ProjectError, find_root
    from pipelines.training_pipeline import arguments

    try:
        remote = dvc.remote_url(find_root())
    except (ProjectError, dvc.DvcError):
        remote = ""
    return arguments(config, LATEST, remote if "://" in remote else "")


def _cluster(where: dict[str, Any]) -> "Cluster":
    from components.state import StateError
    from pipelines.cluster import Cluster

    try:
        records = _records(State.locate())
    except StateError:  # runs can be listed outside of a project
        records = None
    return Cluster(_settings(where).cluster, records=records)


def _records(state: State) -> Path:
    """Returns the folder that records which runs of a cluster were cancelled from this machine."""
    return state.root / "cancelled"


def _with_reason(cluster: "Cluster", found: "ClusterRun") -> "ClusterRun":
    """Adds to a failed run the reason from the log of its step, or the command that shows this log."""
    if found.state != "FAILED" or not found.failed_step:
        return found
    from components.kube import KubeError
    from pipelines.run_pods import failure_reason

    try:
        reason = failure_reason(cluster.workflow_namespace, found.id, found.failed_step)
    except KubeError:
        reason = ""
    hint = f"`myxtts pipeline logs {found.id} --target cluster --step {found.failed_step}` shows its log"
    return replace(found, error=f"{found.error}: {reason or hint}")


def _show(found: "ClusterRun", as_json: bool) -> None:
    """Prints a run of the cluster with its steps."""
    if as_json:
        click.echo(json.dumps(found.plain(), indent=1))
        return
    click.echo(f"{found.id}: {found.state}, started {found.created}\n{found.link}")
    for step in found.steps:
        click.echo(f"  {step:<16} {found.progress(step).lower()}")
    if found.error:
        click.echo(f"error: {found.error}")
