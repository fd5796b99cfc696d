"""`myxtts run`: data stages, pipeline and sample sentences in one command, and a summary of the results."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model.evaluation.metric_table import GATE_METRICS
from pipelines.cli.options import chosen_project, json_option, project_options

if TYPE_CHECKING:
    from pipelines.full_run import Outcome


@click.command()
@project_options
@json_option
def run(as_json: bool, **chosen: Any) -> None:
    """Run the data stages and the training pipeline, and synthesize a few sentences. Unchanged parts are reused."""
    from components.tracking import tracking_uri
    from pipelines.cli.console import Console
    from pipelines.full_run import full_run

    project = chosen_project(**chosen)
    click.echo(f"project {project.folder}\nstate   {project.state.root}", err=True)
    console = Console()
    outcome = full_run(
        project, console.report, console.output, lambda part: click.echo(click.style(part, bold=True), err=True)
    )
    tracking = tracking_uri(project.state)
    click.echo(
        json.dumps(outcome.plain(), indent=1) if as_json else summary(outcome, tracking, _typed_options(**chosen))
    )
    if outcome.error:
        raise SystemExit(1)


def summary(outcome: "Outcome", tracking: str, options: str) -> str:
    """Returns the closing summary: the results, then commands to run next, with the same `options`."""
    lines = [""]
    if outcome.error:
        lines += [f"NOT PROMOTED: {outcome.error}", ""]
        lines += [f"  {proposal}" for proposal in proposals(outcome, options)]
        lines += [""] if lines[-1] else []
    rows = []
    if outcome.version:
        champion = (
            "is the champion" if outcome.champion == outcome.version else f"champion: {outcome.champion or 'none'}"
        )
        rows.append(("model", f"{outcome.name} version {outcome.version} ({champion})"))
    rows.append(("base", outcome.base or "none: trained from scratch"))
    spoken = "speech" if not outcome.error else "candidate"
    rows += [(spoken if index == 0 else "", shown(path)) for index, path in enumerate(outcome.samples)]
    pages = (("report", outcome.report), ("decision", outcome.decision), ("alignment", outcome.alignment))
    rows += [(name, shown(path)) for name, path in pages if path]
    rows.append(("log", shown(outcome.record.folder / "log.txt")))
    steps = ", ".join(
        f"{name} {'cached' if step.state == 'cached' else f'{step.seconds:.1f} s'}"
        for name, step in outcome.record.steps.items()
        if step.state != "waiting"
    )
    rows += [("steps", steps), ("time", ", ".join(f"{part} {value:.1f} s" for part, value in outcome.seconds.items()))]
    lines += [f"{name:<10} {value}" for name, value in rows]
    uri = f"models:/{outcome.name}" + (
        f"/{outcome.version}" if outcome.version and not outcome.champion else "@champion"
    )
    text = next(iter(outcome.samples.values()), "Hello there.")
    page = tracking if tracking.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(tracking)}"
    lines += [
        "",
        "Next",
        f"  MLflow UI   {page}",
        f"  speak       myxtts synthesize --model {uri} {shlex.quote(text)} --output speech.wav",
        f"  study       myxtts study run --trials 8{options}",
    ]
    if not outcome.error and outcome.version != outcome.champion:  # after an error, a proposal says how to promote it
        lines.append(f"  promote     myxtts registry promote {outcome.name} {outcome.version or '<version>'}")
    if outcome.previous:
        lines.append(f"  roll back   myxtts registry rollback {outcome.name}")
    return "\n".join(lines)


def proposals(outcome: "Outcome", options: str) -> list[str]:
    """Returns suggestions for a candidate that was not promoted; none if there is no such candidate."""
    if not outcome.version:
        return []
    found = []
    if any("against version" in name for name in outcome.failed):
        found.append(f"listen to it and to the champion: {shown(outcome.decision)}" if outcome.decision else "")
        found.append("train longer: " + f"myxtts run{options} --set training.max_steps=<more>")
    if set(outcome.failed) & {name.replace("_", " ") for name in GATE_METRICS}:
        found.append("find out why it is not good enough: docs/troubles.md")
    if "listening test" in outcome.failed:
        found.append(f"let people listen: myxtts registry listen {outcome.name} {outcome.version}")
    found.append(f"promote it anyway: myxtts registry promote {outcome.name} {outcome.version} --force --reason <why>")
    return [f"- {line}" for line in found if line]


def _typed_options(
    data: Path | None, model_size: str, config_file: Path | None, assignments: tuple[str, ...], start_from: str
) -> str:
    """Returns the options of this command as text for a shell."""
    named = (
        ("--data", data),
        ("--model-size", model_size),
        ("--start-from", start_from),
        ("--config", config_file),
    )
    given = [part for flag, value in named if value for part in (flag, str(value))]
    return "".join(f" {part}" for part in map(shlex.quote, [*given, *(p for a in assignments for p in ("--set", a))]))


def shown(path: Path) -> str:
    """Returns a path relative to the current folder, if it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
