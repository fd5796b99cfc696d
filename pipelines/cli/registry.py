"""`myxtts registry`: lists, compares, promotes and rolls back versions of registered voices."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from components.artifacts import ArtifactError
from components.gate.checks import FAILED
from components.journal import APPLIED, Entry
from components.registry import DECISION, GATE, REGISTER, ROLLBACK, ROLLED_BACK, Registry, Version
from components.state import State
from pipelines.cli.options import json_option

MAX_OVERRULED = 1000
"""Maximum number of characters, in the history, of the reasons that a forced promotion overrules."""


@click.group()
def registry() -> None:
    """List, compare, promote and roll back registered voices."""


@registry.command(name="list")
@click.argument("name", required=False)
@json_option
def list_command(name: str | None, as_json: bool) -> None:
    """List all versions of one model or of all models."""
    found = Registry(State.locate())
    versions = [item for model in ([name] if name else found.names()) for item in found.versions(model)]
    if name and not versions:
        raise found.unknown(name)
    if as_json:
        click.echo(json.dumps([_plain(item) for item in versions], indent=1))
        return
    for item in versions:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.created))
        aliases = " ".join(f"@{alias}" for alias in item.aliases)
        metrics = "  ".join(f"{key} {value:.3f}" for key, value in item.metrics.items())
        base = f"  <- {item.tags['base.chain']}" if "base.chain" in item.tags else ""
        click.echo(f"{item.name}  {item.number:>3}  {created}  {aliases:<22} {metrics}{base}".rstrip())
    if not versions:
        click.echo("no versions; `myxtts run` registers the first")


@registry.command()
@click.argument("name")
@click.argument("version", default="champion")
@json_option
def show(name: str, version: str, as_json: bool) -> None:
    """Show lineage, metrics and gate results of a version (number or alias)."""
    item = Registry(State.locate()).version(name, version)
    if as_json:
        click.echo(json.dumps(_plain(item), indent=1))
        return
    click.echo(f"{item.name} version {item.number}  {' '.join(f'@{alias}' for alias in item.aliases)}".rstrip())
    rows = {**dict(sorted(item.tags.items())), "mlflow run": item.run_id, "source": item.source}
    rows.pop(GATE, None)
    rows |= {f"gate: {name}": result for name, result in item.checks.items()}
    width = max(map(len, rows))
    for key, value in rows.items():
        click.echo(f"  {key:<{width}}  {value}")


@registry.command()
@click.argument("name")
@click.argument("first", default="champion")
@click.argument("second", default="candidate")
@json_option
def compare(name: str, first: str, second: str, as_json: bool) -> None:
    """Show the metrics of two versions (numbers or aliases) side by side."""
    found = Registry(State.locate())
    left, right = found.version(name, first), found.version(name, second)
    keys = sorted({*left.metrics, *right.metrics})
    rows = {key: (left.metrics.get(key), right.metrics.get(key)) for key in keys}
    same = left.tags.get("dvc.data") == right.tags.get("dvc.data")
    if as_json:
        answer = {"versions": [left.number, right.number], "same_data": same, "metrics": rows}
        click.echo(json.dumps(answer, indent=1))
        return
    click.echo(f"{'':<28} {'version ' + left.number:>14} {'version ' + right.number:>14}")
    for key, values in rows.items():
        shown = [f"{value:14.3f}" if value is not None else f"{'-':>14}" for value in values]
        click.echo(f"{key:<28} {shown[0]} {shown[1]}")
    if not same:
        click.echo("evaluated on different data: the metrics are not comparable")


@registry.command()
@click.argument("name")
@click.argument("version", default="candidate")
@click.option("--reason", default="", help="Why, stored with the version; --force requires it.")
@click.option("--force", is_flag=True, help="Promote what was not evaluated, failed its gate, or was rolled back.")
def promote(name: str, version: str, reason: str, force: bool) -> None:
    """Make a version (number or alias) the champion if it passed its gate and can synthesize a sentence."""
    if force and not reason.strip():
        raise click.UsageError("--force requires --reason, the reason for promoting this version anyway")
    found = Registry(State.locate())
    item = found.version(name, version)
    obstacles = _obstacles(item)
    if obstacles and not force:
        for obstacle in obstacles:
            click.echo(obstacle, err=True)
        click.echo(f"{name} version {item.number} is not promoted; --force --reason <why> promotes it anyway", err=True)
        raise SystemExit(1)
    from components.smoke_test import smoke_test

    forced = f"forced: {reason}" if obstacles else reason or "promoted by hand"
    found.promote(
        name, item.number, None, forced, smoke_test, forced=bool(obstacles), evidence=_evidence(item, obstacles)
    )
    click.echo(f"{name}: champion is version {item.number}")
    _announce(found, name)


def _announce(found: Registry, name: str) -> None:
    """Announces a new champion as `registry.on_promote` says; a failure is a warning, since the champion stands."""
    from components.announcement import announce
    from pipelines.cli.options import load_settings

    announce(found, name, load_settings().config.registry.on_promote)


def _evidence(item: Version, obstacles: Sequence[str]) -> dict[str, str]:
    """Returns what a promotion by hand rests on, and what it overrules."""
    evidence = {
        "evaluation": f"runs:/{item.run_id}/evaluation" if item.run_id else "",
        DECISION: item.tags.get(DECISION, ""),
        "overruled": "; ".join(obstacles)[:MAX_OVERRULED],
    }
    return {key: value for key, value in evidence.items() if value}


def _obstacles(item: Version) -> list[str]:
    """Returns the reasons against the promotion of a version."""
    found = [f"{name}: {value}" for name, value in item.checks.items() if value.startswith(FAILED)]
    if not item.checks:
        found.append("its gate has not run: it was not compared with anything")
    if ROLLED_BACK in item.tags:
        found.append(f"it was rolled back: {item.tags[ROLLED_BACK]}")
    return found


@registry.command()
@click.argument("name")
@json_option
def history(name: str, as_json: bool) -> None:
    """Show who promoted, rolled back and registered which version, when, with which code, and why."""
    entries = Registry(State.locate()).history(name)
    if as_json:
        changes = [
            {
                "number": entry.number,
                **asdict(entry.operation),
                "outcome": entry.outcome,
                "announcement": entry.announcement,
            }
            for entry in entries
        ]
        click.echo(json.dumps(changes, indent=1))
        return
    for entry in entries:
        click.echo("\n".join(_lines(entry)))
    if not entries:
        click.echo(f"{name}: nothing was changed by this program yet")


def _lines(entry: Entry) -> list[str]:
    """Returns an entry of the history as text."""
    done, by = entry.operation, entry.operation.author
    kind = f"{'forced ' if done.forced else ''}{done.action}{' to' if done.action == ROLLBACK else ''}"
    before = f", before: {done.replaced or 'none'}" if done.action != REGISTER else ""
    outcome = "" if entry.outcome == APPLIED else f"  ({entry.outcome or 'not finished'})"
    lines = [f"{entry.number:>4}  {done.time}  {kind} version {done.version}{before}{outcome}"]
    if by is None:
        lines.append("by: not recorded by this version of the program")
    else:
        identity = f" ({by.identity})" if by.identity else ""
        lines.append(f"by: {by.user} on {by.host}{identity}, commit {by.commit}")
    lines += [f"why: {done.reason}"] if done.reason else []
    lines += [f"{key}: {value}" for key, value in done.evidence.items()]
    lines += [f"announcement: {entry.announcement}"] if entry.announcement else []
    return [lines[0], *(f"      {line}" for line in lines[1:])]


@registry.command()
@click.argument("name")
@click.argument("version", default="champion")
def verify(name: str, version: str) -> None:
    """Compare the files of a version (number or alias) with the hashes recorded at its registration."""
    found = Registry(State.locate())
    item = found.version(name, version)
    try:
        folder = found.verified_files(item)
    except ArtifactError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    click.echo(f"{name} version {item.number}: the files in {folder} are those that were registered")


@registry.command()
@click.argument("name")
@click.option("--reason", default="rolled back by hand", show_default=True, help="Stored with the version.")
def rollback(name: str, reason: str) -> None:
    """Make the previous champion the champion again."""
    found = Registry(State.locate())
    old, new = found.rollback(name, reason)
    click.echo(f"{name}: champion is version {new} again (was {old or 'none: its alias was deleted in MLflow'})")
    _announce(found, name)


@registry.command()
@click.argument("name")
@click.argument("version", default="candidate")
@click.option("--port", type=int, default=0, help="Port of the page; by default any free one.")
@click.option(
    "--results", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True,
    help="Results that a listener has sent; with this, no page is served. Give it several times for several files.",
)  # fmt: skip
def listen(name: str, version: str, port: int, results: tuple[Path, ...]) -> None:
    """Serve a blind listening test of a version against the champion, and record the answers of the listeners."""
    from components.listening import CANDIDATE, CHAMPION, listening_server, open_test
    from model.evaluation.listening import read_results
    from pipelines.cli.options import load_settings

    config = load_settings().config.registry
    test = open_test(State.locate(), name, version)
    for path in results:
        test.add(read_results(path, test.key))
    if results:
        check, summary = test.record(config), test.summary()
        click.echo(f"{check.name}: {check.result}, {check.reason}")
        click.echo(f"left out of the quality scores: {', '.join(summary.left_out) or 'nobody'}")
        for system, score in summary.scores.items():
            click.echo(f"  quality of {system:10} {score.mean:5.1f} ({score.low:.1f} to {score.high:.1f})")
        strength = summary.strengths[CANDIDATE] - summary.strengths[CHAMPION]
        click.echo(f"  Bradley-Terry, candidate over champion {strength:+.2f}")
        return
    server = listening_server(test, config, port)
    click.echo(f"http://127.0.0.1:{server.server_port}/  (or send the file {test.page}; its answers: --results)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    finally:
        server.server_close()


def _plain(item: Version) -> dict[str, Any]:
    """Returns a version as JSON data."""
    return {**vars(item), "aliases": list(item.aliases), "metrics": item.metrics}
