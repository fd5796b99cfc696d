"""Options that several commands share, so that each is spelt, explained and checked in one way."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import yaml

if TYPE_CHECKING:
    from pipelines.project import Project

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
model_option = click.option("--model", required=True, help="A voice folder, or models:/NAME@ALIAS from the registry.")
corpus_option = click.option("--corpus", type=PATH, default=Path("data/corpus"), show_default=True, help="The corpus.")
features_option = click.option(
    "--features",
    type=PATH,
    default=Path("data/features"),
    show_default=True,
    help="Feature store, made by `myxtts features build`.",
)


def settings_files(command: Command) -> Command:
    """Decorator: `--config` and `--set`, what is laid over `params.yaml`."""
    command = click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, by its full key."
    )(command)
    return click.option("--config", "config_file", type=PATH, help="Settings laid over params.yaml.")(command)


def project_options(command: Command) -> Command:
    """Decorator: recordings, model size and settings; `chosen_project` takes the values."""
    command = settings_files(command)
    command = click.option("--model-size", default="", help="tiny, small, normal or big [default: params.yaml's].")(
        command
    )
    return click.option(
        "--data", type=PATH, help="Recordings in any layout of docs/corpus.md [default: params.yaml's]."
    )(command)


def chosen_project(
    data: Path | None,
    model_size: str,
    config_file: Path | None,
    assignments: tuple[str, ...],
    **named: Any,
) -> "Project":
    """The project that `project_options` choose; `named` are further settings by dotted key, without empty ones."""
    from pipelines.project import open_project

    overrides = {"model_size": model_size, **named}
    given = {key: value for key, value in overrides.items() if value}
    return open_project(data, config_file, {**given, **parse_assignments(assignments)})


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` texts, the values read as YAML, as a mapping.

    Raises:
        click.UsageError: one is not of that form.
    """
    given = {}
    for assignment in assignments:
        key, found, value = assignment.partition("=")
        if not found or not key.strip():
            raise click.UsageError(f"--set {assignment}: write it as KEY=VALUE")
        try:
            given[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            reason = getattr(error, "problem", None) or "not readable"
            raise click.UsageError(
                f"--set {assignment}: the value is no YAML ({reason}); quote it if it is text"
            ) from error
    return given
