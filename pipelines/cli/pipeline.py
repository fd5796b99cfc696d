"""`myxtts pipeline`: compile for a cluster, run on this machine, look at what ran."""

import json
import time
from pathlib import Path

import click

from components.state import State
from pipelines.local import RunRecord


@click.group()
def pipeline() -> None:
    """Compile, run and list training pipelines."""


@pipeline.command(name="compile")
@click.option("--target", type=click.Choice(["local", "cluster"]), default="cluster", show_default=True)
@click.option("--image", default="", help="Image of every step, by digest (cluster).")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="File to write [default: stdout].")
def compile_command(target: str, image: str, output: Path | None) -> None:
    """Write the pipeline as the YAML that Kubeflow Pipelines takes."""
    from pipelines.compiling import compile_training
    from pipelines.profiles import cluster_profile, local_profile

    if target == "cluster" and not image:
        raise click.UsageError("--target cluster needs --image (a digest, such as registry/myxtts-python@sha256:...)")
    text = compile_training(cluster_profile(image) if target == "cluster" else local_profile())
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"{output}: {len(text.splitlines())} lines", err=True)


@pipeline.command()
@click.option("--target", type=click.Choice(["local"]), default="local", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), help="Recordings in LJSpeech layout [default: params.yaml's].")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings laid over params.yaml.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, by its full key.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's record as JSON.")
def run(target: str, data: Path | None, config_file: Path | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Run the pipeline on data that `dvc repro` has made and `dvc push` has pushed."""
    from pipelines.cli.assignments import parse_assignments
    from pipelines.cli.console import Console
    from pipelines.local import run_training
    from pipelines.project import open_project

    project = open_project(data, config_file, parse_assignments(assignments))
    console = Console()
    record = run_training(project.state, project.run_arguments(), project.lineage, console.report, console.output)
    if as_json:
        click.echo(json.dumps(record.plain(), indent=1))


@pipeline.command(name="list")
@click.option("--limit", default=20, show_default=True, help="Newest runs shown.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def list_command(limit: int, as_json: bool) -> None:
    """Runs of this project, newest first."""
    records = all_runs(State.locate())[:limit]
    if as_json:
        click.echo(json.dumps([item.plain() for item in records], indent=1))
        return
    for item in records:
        steps = " ".join(f"{name}:{step.state}" for name, step in item.steps.items())
        click.echo(f"{item.id}  {item.state:<11} {item.seconds:8.1f} s  {item.arguments['name']}  {steps}")
    if not records:
        click.echo("no runs yet; `myxtts run` makes the first")


@pipeline.command()
@click.argument("run_id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def status(run_id: str | None, as_json: bool) -> None:
    """How a run went (default: the newest); exits 1 when it failed."""
    records = all_runs(State.locate())
    chosen = [item for item in records if run_id in (None, item.id)]
    if not chosen:
        raise click.UsageError(f"no run {run_id or 'yet'}; `myxtts pipeline list` shows them")
    record = chosen[0]
    if as_json:
        click.echo(json.dumps(record.plain(), indent=1))
    else:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started))
        click.echo(f"{record.id}: {record.state}, started {started}, {record.seconds:.1f} s")
        for name, step in record.steps.items():
            click.echo(f"  {name:<13} {step.state:<11} {step.seconds:8.1f} s  {step.message}".rstrip())
        click.echo(f"log: {record.folder / 'log.txt'}")
    if record.state in ("failed", "interrupted"):
        raise SystemExit(1)


def all_runs(state: State) -> list[RunRecord]:
    """Every recorded run, newest first; one whose process is gone without a word counts as interrupted."""
    records = [RunRecord.load(path.parent) for path in sorted(state.runs.glob("run-*/run.json"), reverse=True)]
    for record in records:
        if record.state == "running" and not Path("/proc", record.id.rpartition("-")[2]).is_dir():
            record.state = "interrupted"
    return records
