"""`myxtts registry`: lists, compares, promotes and rolls back versions of registered voices."""

import json
import time
from typing import Any

import click

from components.artifacts import ArtifactError
from components.registry import Registry, Version
from components.state import State
from pipelines.cli.options import json_option


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
    for key, value in {**dict(sorted(item.tags.items())), "mlflow run": item.run_id, "source": item.source}.items():
        click.echo(f"  {key:<28} {value}")


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
@click.option("--reason", default="promoted by hand", show_default=True, help="Stored with the version.")
@click.option("--force", is_flag=True, help="Promote in spite of a failed gate.")
def promote(name: str, version: str, reason: str, force: bool) -> None:
    """Make a version (number or alias) the champion if it passed its gate and can synthesize a sentence."""
    found = Registry(State.locate())
    item = found.version(name, version)
    failed = {key: value for key, value in item.tags.items() if key.startswith("gate.") and value.startswith("fail")}
    if failed and not force:
        for key, value in failed.items():
            click.echo(f"{key}: {value}", err=True)
        click.echo(f"{name} version {item.number} failed its gate; --force promotes it in spite of that", err=True)
        raise SystemExit(1)
    from components.smoke_test import smoke_test

    found.promote(name, item.number, None, reason, smoke_test)
    click.echo(f"{name}: champion is version {item.number}")


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
    old, new = Registry(State.locate()).rollback(name, reason)
    click.echo(f"{name}: champion is version {new} again (was {old or 'none: its alias was deleted in MLflow'})")


def _plain(item: Version) -> dict[str, Any]:
    """Returns a version as JSON data."""
    return {**vars(item), "aliases": list(item.aliases), "metrics": item.metrics}
