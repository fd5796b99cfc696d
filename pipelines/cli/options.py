"""Options that several commands share, and settings as flags, made from the configuration schema."""

import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click
import yaml
from pydantic.fields import FieldInfo

from components.state import PROJECT_FILE
from model.config.resolution import Resolved, field_of, known_keys, resolve

if TYPE_CHECKING:
    from pipelines.project import Project

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)

MODEL_FLAGS = ("model_size", "optimization_level", "seed")
"""Settings that most commands have as flags."""

TRAINING_FLAGS = (
    *MODEL_FLAGS,
    "training.start_from",
    "training.max_steps",
    "training.batch_size",
    "training.learning_rate",
    "training.gradient_clip_norm",
    "training.gradient_accumulation_steps",
    "training.use_mixed_precision",
    "training.enable_gradient_checkpointing",
    "training.enable_static_shapes",
    "training.buffer_size",
    "training.data_gpu",
    "training.model_gpu",
    "training.enable_memory_isolation",
    "training.enable_evaluation",
    "training.evaluation_interval",
    "loss.mel_loss_weight",
    "loss.kl_loss_weight",
    "model.enable_gst",
    "model.gst_num_style_tokens",
    "model.gst_style_token_dim",
    "vocoder.type",
    "vocoder.checkpoint",
)
"""Settings of training that are flags: those of the evaluation document and the common ones."""

VOCODER_FLAGS = (
    *MODEL_FLAGS,
    "vocoder.type",
    "vocoder.variant",
    "vocoder.checkpoint",
    "vocoder.checkpoint_sha256",
    "vocoder.max_steps",
    "vocoder.finetune_steps",
    "vocoder.batch_size",
    "vocoder.learning_rate",
    "vocoder.evaluation_interval",
)
"""Settings of a vocoder that are flags."""

PREFIXED_SECTIONS = ("vocoder",)
"""Sections whose flags begin with their name (`--vocoder-type`): other sections have keys of the same name."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
model_option = click.option("--model", required=True, help="A voice folder, or models:/NAME@ALIAS from the registry.")
corpus_option = click.option(
    "--corpus",
    type=PATH,
    default=Path("data/corpus"),
    show_default=True,
    help="Corpus folder, made by `myxtts corpus make` or the data stages.",
)
features_option = click.option(
    "--features",
    type=PATH,
    default=Path("data/features"),
    show_default=True,
    help="Feature store, made by `myxtts features build`.",
)


def settings_files(command: Command) -> Command:
    """Adds `--config` and `--set`, which override `params.yaml`."""
    add_assignments = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any setting by its full key, repeatable; `myxtts config show` lists all of them.",
    )
    add_file = click.option(
        "--config", "config_file", type=PATH, help="YAML file of settings that override params.yaml."
    )
    return add_file(add_assignments(command))


def project_options(command: Command) -> Command:
    """Adds `--data`, `--model-size`, `--config` and `--set`; `chosen_project` takes their values."""
    add_size = click.option("--model-size", default="", help="tiny, small, normal or big [default: from params.yaml].")
    add_data = click.option(
        "--data", type=PATH, help="Folder of recordings in a layout of docs/corpus.md [default: from params.yaml]."
    )
    add_base = click.option(
        "--start-from",
        default="",
        help="Voice to start from: a folder, models:/NAME@ALIAS, auto, or none [default: from params.yaml].",
    )
    return add_data(add_size(add_base(settings_files(command))))


def chosen_project(
    data: Path | None,
    model_size: str,
    config_file: Path | None,
    assignments: tuple[str, ...],
    start_from: str = "",
    overrides: dict[str, Any] | None = None,
) -> "Project":
    """Opens the project that the values of `project_options` describe.

    Args:
        data: Folder of recordings.
        model_size: Name of a model size, '' for the one in `params.yaml`.
        config_file: Settings file.
        assignments: Values of `--set`.
        start_from: Voice to start from, '' for the one in `params.yaml`.
        overrides: Further settings by dotted key; empty values are ignored.
    """
    from pipelines.project import open_project

    named = {"model_size": model_size, "training.start_from": start_from, **(overrides or {})}
    given = {key: value for key, value in named.items() if value}
    return open_project(data, config_file, {**given, **parse_assignments(assignments)})


def given_settings(values: Mapping[str, Any]) -> bool:
    """Returns whether any of the values of `project_options` chooses data or settings."""
    return any(values[name] for name in ("data", "model_size", "config_file", "assignments", "start_from"))


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Parses `KEY=VALUE` texts, the values as YAML, into settings by dotted key.

    Raises:
        click.UsageError: a text has another form, or its value is not YAML.
    """
    settings = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not key.strip():
            raise click.UsageError(f"--set {assignment}: write it as KEY=VALUE")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            reason = getattr(error, "problem", None) or "not readable"
            raise click.UsageError(
                f"--set {assignment}: the value is not valid YAML ({reason}); put text in quotes"
            ) from error
    return settings


def settings_options(*keys: str) -> Callable[[Command], Command]:
    """Adds `--params`, `--config`, `--set` and a flag for each of the dotted `keys`.

    The command receives one argument `settings`, the resolved configuration (`Resolved`). On/off settings become pairs
    of flags (`--enable-gst/--disable-gst`, `--use-mixed-precision/--no-mixed-precision`).
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def call(params: Path | None, config_file: Path | None, assignments: tuple[str, ...], **arguments: Any) -> Any:
            values = {key: arguments.pop(_parameter(key)) for key in keys}
            overrides = {key: value for key, value in values.items() if value is not None}
            return command(settings=load_settings(params, config_file, assignments, overrides), **arguments)

        for key in reversed(keys):
            _flag(key)(call)
        settings_files(call)
        add_params = click.option("--params", type=PATH, help="Settings file [default: params.yaml of the project].")
        return cast(Command, add_params(call))

    return decorate


def load_settings(
    params: Path | None = None,
    config_file: Path | None = None,
    assignments: Iterable[str] = (),
    overrides: dict[str, Any] | None = None,
) -> Resolved:
    """Resolves the settings of a command.

    Args:
        params: Project settings [default: `params.yaml` of the current folder, else of the project around it].
        config_file: Settings file that overrides them.
        assignments: Values of `--set`, which override everything.
        overrides: Settings of flags, by dotted key.
    """
    params = params or _project_settings()
    resolved = resolve(params, config_file, {**(overrides or {}), **parse_assignments(assignments)})
    corpus = resolved.config.corpus
    if params is None or params.parent in (Path(), Path.cwd()) or resolved.origins["corpus.path"] != str(params):
        return resolved
    path = str(params.parent / corpus.path) if corpus.path else ""  # as the data stages read it, in the project
    moved = resolved.config.model_copy(update={"corpus": corpus.model_copy(update={"path": path})})
    return replace(resolved, config=moved)


def _project_settings() -> Path | None:
    """Returns `params.yaml` of the current folder, else of the nearest project folder above; None if there is none."""
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / PROJECT_FILE).is_file()), here)
    return next((path for folder in (here, root) if (path := folder / "params.yaml").is_file()), None)


def flag_name(key: str) -> str:
    """Returns the flag of a setting without its leading dashes, `enable-gst` for `model.enable_gst`."""
    section, _, name = key.rpartition(".")
    return (f"{section}_{name}" if section in PREFIXED_SECTIONS else name).replace("_", "-")


def settings_of_flag(flag: str) -> list[str]:
    """Returns the settings that a flag such as `--warmup-steps` could mean, by dotted key."""
    name = flag.lstrip("-").split("=")[0]
    return [key for key in known_keys() if name in _flag_pair(key)]


def _parameter(key: str) -> str:
    return f"setting_{key.replace('.', '_')}"


def _flag_pair(key: str) -> tuple[str, str]:
    """Returns the flags that turn an on/off setting on and off; for other settings the second one is ''."""
    name = flag_name(key)
    if _value_type(_setting(key).annotation) is not bool:
        return name, ""
    for prefix, opposite in (("enable-", "disable-"), ("use-", "no-")):
        if name.startswith(prefix):
            return name, name.replace(prefix, opposite, 1)
    return name, f"no-{name}"


def _flag(key: str) -> Callable[[Command], Command]:
    """Returns the decorator that adds the flag of one setting."""
    field = _setting(key)
    help_text = f"{field.description or ''} [{key}]".strip()
    on, off = _flag_pair(key)
    if off:
        return click.option(f"--{on}/--{off}", _parameter(key), default=None, help=help_text)
    return click.option(f"--{on}", _parameter(key), type=_value_type(field.annotation), default=None, help=help_text)


def _setting(key: str) -> FieldInfo:
    """Returns the schema's field of a setting that is known."""
    field = field_of(key)
    assert field is not None
    return field


def _value_type(annotation: Any) -> Any:
    """Returns the type that click parses a setting as: `float` for `Annotated[float, ...] | None` and the like."""
    if isinstance(annotation, types.GenericAlias):
        return str
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        inner = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
        return _value_type(inner)
    if typing.get_origin(annotation) is typing.Annotated:
        return _value_type(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is Literal:
        values = typing.get_args(annotation)
        return click.Choice(values) if isinstance(values[0], str) else type(values[0])
    return annotation if annotation in (bool, int, float, str) else str
