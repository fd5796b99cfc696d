"""`myxtts run`: from recordings to a registered voice that speaks, and a summary of where everything is."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli.assignments import parse_assignments


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of recordings [default: params.yaml's].")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings laid over params.yaml.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, by its full key.")
def run(data: Path | None, config_file: Path | None, assignments: tuple[str, ...]) -> None:
    """Data stages, training pipeline, a few spoken sentences. What is unchanged is not done again."""
    from components.tracking import tracking_uri
    from pipelines.cli.console import Console
    from pipelines.full_run import full_run
    from pipelines.project import open_project

    project = open_project(data, config_file, parse_assignments(assignments))
    click.echo(f"project {project.folder}\nstate   {project.state.root}", err=True)
    console = Console()
    outcome = full_run(
        project, console.report, console.output, lambda part: click.echo(click.style(part, bold=True), err=True)
    )
    click.echo(summary(outcome, tracking_uri(project.state), data))
    if outcome.error:
        raise SystemExit(1)


def summary(outcome: Any, tracking: str, data: Path | None) -> str:
    """The closing summary as text: results first, then what to do next."""
    lines = [""]
    if outcome.error:
        lines += [f"NOT PROMOTED: {outcome.error}", ""]
    rows = []
    if outcome.version:
        champion = (
            "is the champion" if outcome.champion == outcome.version else f"champion: {outcome.champion or 'none'}"
        )
        rows.append(("model", f"{outcome.name} version {outcome.version} ({champion})"))
    rows += [("speech" if index == 0 else "", shown(path)) for index, path in enumerate(outcome.samples)]
    rows += [
        (name, shown(path)) for name, path in (("report", outcome.report), ("alignment", outcome.alignment)) if path
    ]
    rows.append(("log", shown(outcome.record.folder / "log.txt")))
    steps = ", ".join(
        f"{name} {'cached' if step.state == 'cached' else f'{step.seconds:.1f} s'}"
        for name, step in outcome.record.steps.items()
        if step.state != "waiting"
    )
    rows += [("steps", steps), ("time", ", ".join(f"{part} {value:.1f} s" for part, value in outcome.seconds.items()))]
    lines += [f"{name:<10} {value}" for name, value in rows]
    given = f" --data {data}" if data else ""
    uri = f"models:/{outcome.name}" + (
        f"/{outcome.version}" if outcome.version and not outcome.champion else "@champion"
    )
    lines += [
        "",
        "Next",
        f"  MLflow UI   {tracking if tracking.startswith('http') else f'mlflow ui --backend-store-uri {tracking}'}",
        f'  speak       myxtts synthesize --model {uri} "Hello there." --output hello.wav',
        f"  study       myxtts study run --model-size {outcome.size} --trials 8{given}",
        f"  promote     myxtts registry promote {outcome.name} {outcome.version or '<version>'}",
        f"  roll back   myxtts registry rollback {outcome.name}",
    ]
    return "\n".join(lines)


def shown(path: Path) -> str:
    """A path as one would type it from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
