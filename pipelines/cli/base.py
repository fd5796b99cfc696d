"""`myxtts base`: makes and lists the voices that other trainings start from."""

import json

import click

from components.base_voice import FALLBACK, LANGUAGES, base_name
from components.state import State
from model.config.resolution import presets
from pipelines.base_voices import ensure_base, list_bases
from pipelines.cli.options import json_option


@click.group()
def base() -> None:
    """Make and list base voices, which trainings start from."""


@base.command()
@click.option(
    "--languages",
    default=FALLBACK,
    show_default=True,
    help=f"Languages of the generated speech, separated by commas: {', '.join(LANGUAGES)}.",
)
@click.option("--model-size", default="tiny", show_default=True, help="tiny, small, normal or big.")
@json_option
def make(languages: str, model_size: str, as_json: bool) -> None:
    """Make the base voice of these languages and this size from generated speech, unless it exists."""
    from pipelines.cli.console import Console
    from pipelines.full_run import make_base
    from pipelines.project import find_root

    wanted = {item.strip() for item in languages.split(",")}
    if unknown := wanted - set(LANGUAGES):
        raise click.UsageError(
            f"--languages: there are no sentences in {', '.join(sorted(unknown))}; known: {', '.join(LANGUAGES)}"
        )
    if model_size not in presets()[0]:
        raise click.UsageError(f"--model-size: unknown size {model_size!r}; known: {', '.join(presets()[0])}")
    console = Console()

    def announce(part: str) -> None:
        click.echo(click.style(part, bold=True), err=True)

    found = ensure_base(
        State.locate(find_root()).prepare(),
        tuple(language for language in LANGUAGES if language in wanted),
        model_size,
        lambda settings: make_base(settings, console.report, console.output, announce),
    )
    if as_json:
        click.echo(json.dumps({"uri": found.uri, "weights_sha256": found.weights_sha256, "folder": str(found.folder)}))
    else:
        click.echo(f"{found.uri}\nstart from it:  myxtts run --data <folder> --start-from {found.uri}")


@base.command(name="list")
@json_option
def list_command(as_json: bool) -> None:
    """List the registered base voices."""
    found = list_bases(State.locate())
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for item in found:
        click.echo(
            f"{item['name']}  {item['version']:>3}  {' '.join(f'@{alias}' for alias in item['aliases'])}".rstrip()
        )
    if not found:
        click.echo(f"no base voices; `myxtts base make` makes {base_name((FALLBACK,), 'tiny')}")
