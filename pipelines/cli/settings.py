"""Settings on the command line: one flag for every key, made from the schema, so that no flag can lack its key."""

import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from model.config.resolution import Resolved, resolve
from model.config.schema import Config
from pipelines.cli.options import PATH, parse_assignments, settings_files

Command = typing.TypeVar("Command", bound=Callable[..., Any])

_EVERYWHERE = ("model_size", "optimization_level", "seed")
_PREFIXED = ("vocoder",)
"""Sections whose flags carry their name (`--vocoder-type`): their keys mean something else elsewhere."""
_LISTS = ("sources",)
"""Lists of settings stand in `params.yaml` or behind `--set`, not in a flag."""


def settings_options(*sections: str) -> Callable[[Command], Command]:
    """Decorator: adds `--params`, `--config`, `--set` and a flag per key of the named sections.

    The command receives one argument `settings`, the `Resolved` configuration. On/off flags come in pairs
    (`--enable-gst/--disable-gst`, `--use-mixed-precision/--no-mixed-precision`).
    """
    keys = {name: name for name in _EVERYWHERE}
    for section in sections:
        fields = Config.model_fields[section].annotation.model_fields
        prefix = f"{section}_" if section in _PREFIXED else ""
        keys |= {f"{prefix}{name}": f"{section}.{name}" for name in fields if name not in _LISTS}

    def decorate(command: Command) -> Command:
        def call(params: Path | None, config_file: Path | None, assignments: tuple[str, ...], **arguments: Any) -> Any:
            given = {key: arguments.pop(_parameter(name)) for name, key in keys.items()}
            overrides = {key: value for key, value in given.items() if value is not None}
            return command(settings=load_settings(params, config_file, assignments, overrides), **arguments)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__click_params__ = list(getattr(command, "__click_params__", []))
        for name, key in reversed(keys.items()):
            _flag(name, key)(call)
        settings_files(call)
        return click.option("--params", type=PATH, help="Settings file [default: ./params.yaml if there].")(call)

    return decorate


def load_settings(
    params: Path | None = None,
    config_file: Path | None = None,
    assignments: tuple[str, ...] = (),
    overrides: dict[str, Any] | None = None,
) -> Resolved:
    """Resolve the settings of a command; `assignments` are `key=value` texts with YAML values."""
    if params is None and Path("params.yaml").is_file():
        params = Path("params.yaml")
    given = {**(overrides or {}), **parse_assignments(assignments)}
    return resolve(params, config_file, given)


def _parameter(name: str) -> str:
    return f"setting_{name}"


def _flag(name: str, key: str) -> Callable[[Command], Command]:
    field = Config
    for part in key.split("."):
        info = field.model_fields[part]
        field = info.annotation
    dashed, annotation = name.replace("_", "-"), info.annotation
    help_text = f"{info.description or ''} [{key}]".strip()
    if annotation is bool or _plain(annotation) is bool:
        off = {"enable": dashed.replace("enable-", "disable-", 1), "use": dashed.replace("use-", "no-", 1)}
        pair = f"--{dashed}/--{off.get(dashed.split('-')[0], 'no-' + dashed)}"
        return click.option(pair, _parameter(name), default=None, help=help_text)
    if typing.get_origin(annotation) is typing.Literal and isinstance(typing.get_args(annotation)[0], str):
        kind: Any = click.Choice(typing.get_args(annotation))
    else:
        kind = annotation if annotation in (int, float, str) else _plain(annotation)
    return click.option(f"--{dashed}", _parameter(name), type=kind, default=None, help=help_text)


def _plain(annotation: Any) -> Any:
    """The plain type behind `Literal[256]`, `float | None` and the like."""
    if isinstance(annotation, types.GenericAlias):
        return str
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        inner = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
        return typing.get_args(inner)[0] if typing.get_origin(inner) is typing.Annotated else inner
    values = typing.get_args(annotation)
    return type(values[0]) if values else str
