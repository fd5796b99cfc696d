"""Merges the layers of settings into one `Config` and records the origin of every value.

Precedence, later wins: schema default < model size < optimization level < `params.yaml` < `--config` file < flags.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from model.addresses import hide_credentials
from model.config.schema import Config
from model.errors import MyXTTSError

COMMAND_LINE = "command line"
"""Origin of values that were given as flags."""


MAX_CHARACTERS, MAX_LEVELS = 1_000_000, 10
"""Length and nesting of a settings file that is read."""


class ConfigError(MyXTTSError):
    """A setting is unknown, malformed or out of range; the message names it and the fix."""


@dataclass(frozen=True)
class Resolved:
    """A configuration and the origin of each value.

    Attributes:
        config: The merged, validated settings.
        origins: Name of the layer that set a value (`default` where none did), by dotted key.
    """

    config: Config
    origins: dict[str, str]

    def differences(self) -> dict[str, tuple[Any, Any, str]]:
        """Returns (schema default, value, origin) of every value that is not the default, by dotted key."""
        defaults = flatten(Config().model_dump())
        values = flatten(self.config.model_dump())
        return {
            key: (defaults[key], value, self.origins[key]) for key, value in values.items() if value != defaults[key]
        }


@cache
def presets() -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the shipped presets: those of the model sizes and those of the optimization levels."""
    folder = Path(__file__).parent / "presets"
    sizes, levels = (yaml.safe_load((folder / name).read_text("utf-8")) for name in ("sizes.yaml", "levels.yaml"))
    return sizes, levels


def batch_range(model_size: str) -> tuple[int, int]:
    """Returns the smallest and the largest batch size (clips) that are recommended for a model size."""
    low, high = presets()[0][model_size]["batch_range"]
    return low, high


def resolve(
    params_file: Path | None = None,
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    derived: Mapping[str, Mapping[str, Any]] | None = None,
    source: str = COMMAND_LINE,
) -> Resolved:
    """Merges the layers of settings, validates the result, and records the origin of each value.

    Args:
        params_file: The project's `params.yaml`; `None` leaves the layer out.
        config_file: A `--config` file of the same form, with higher precedence.
        overrides: Command-line values by dotted key (`training.batch_size`).
        derived: Layers between the presets and the user's: name -> values by dotted key, such as the settings that
            follow from a base voice (`base_layers`).
        source: Origin of the overrides, which errors name.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or range, or an unreadable file.
    """
    user_layers = [(str(path), _read(path)) for path in (params_file, config_file) if path is not None]
    user_layers.append((source, dict(overrides or {})))

    chosen = Config().model_dump(include={"model_size", "optimization_level"})
    for layer in (derived or {}).values():
        chosen |= {key: layer[key] for key in chosen if key in layer}
    for name, layer in user_layers:
        _refuse_unknown(layer, name)
        chosen.update({key: layer[key] for key in chosen if key in layer})
    sizes, levels = presets()
    for key, known in (("model_size", sizes), ("optimization_level", levels)):
        if not isinstance(chosen[key], str) or chosen[key] not in known:
            raise ConfigError(f"{key}: {chosen[key]!r} is not one of {', '.join(known)}")
    size = {key: value for key, value in flatten(sizes[chosen["model_size"]]).items() if key != "batch_range"}
    layers = [
        (f"model size {chosen['model_size']}", size),
        (f"level {chosen['optimization_level']}", flatten(levels[chosen["optimization_level"]])),
        *(derived or {}).items(),
        *user_layers,
    ]

    merged: dict[str, Any] = {}
    origins = dict.fromkeys(known_keys(), "default")
    for name, layer in layers:
        for key, value in layer.items():
            merged[key] = value
            origins[key] = name
    try:
        config = Config.model_validate(nest(merged))
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    return Resolved(config, origins)


def with_layers(resolved: Resolved, derived: Mapping[str, Mapping[str, Any]]) -> Resolved:
    """Returns settings with further layers between the presets and the user's settings.

    Args:
        resolved: Settings.
        derived: Name of a layer -> values by dotted key, as for `resolve`.
    """
    values = flatten(resolved.config.model_dump(mode="json"))
    preset = ("default", "model size", "level")
    given = {key: values[key] for key, origin in resolved.origins.items() if not origin.startswith(preset)}
    merged = resolve(None, None, given, derived)
    return Resolved(merged.config, {**merged.origins, **{key: resolved.origins[key] for key in given}})


def base_layers(base: Mapping[str, Any], seconds: float, reads_corpus: bool = True) -> dict[str, dict[str, Any]]:
    """Returns the settings that follow from a base voice, as layers for `resolve`: the user's own values win.

    Args:
        base: `config` of the base's description: `model_size`, `audio`, `model`, ...
        seconds: Training speech in the corpus; 0 where it is not known yet, which leaves steps and learning rate alone.
        reads_corpus: Whether the base speaks all languages of the corpus. One that does not is no help in reading them,
            so nothing of it is interpolated.
    """
    layers = {"base voice": flatten({name: base[name] for name in ("model_size", "model")})}
    own_encoder = not base["model"]["use_pretrained_speaker_encoder"]
    if own_encoder or base["features"]["speaker_encoder_model"] == "resemblyzer":
        layers["base voice"] |= {"model.use_speaker_consistency_loss": True, "loss.speaker_consistency_start": 0.0}
    preset = adaptation_preset(seconds)
    if preset:
        size = presets()[0][base["model_size"]]["training"]
        layers[f"adaptation to {seconds:.0f} s of speech"] = {
            "training.max_steps": max(1, round(preset["steps"] * size["max_steps"])),
            "training.learning_rate": preset["learning_rate"] * size["learning_rate"],
            "training.warmup_steps": preset["warmup_steps"],
            "training.base_interpolation": preset["base_interpolation"] if reads_corpus else 0.0,
            "loss.speaker_consistency_loss_weight": preset["speaker_consistency_loss_weight"],
        }
    return layers


def adaptation_preset(seconds: float) -> dict[str, Any] | None:
    """Returns the row of `presets/adaptation.yaml` for an amount of speech; None if it is unknown (0) or plentiful."""
    rows = yaml.safe_load((Path(__file__).parent / "presets" / "adaptation.yaml").read_text("utf-8"))
    return next((row for row in rows if 0 < seconds <= row["up_to_seconds"]), None)


def subset(config: Config, *sections: str) -> dict[str, Any]:
    """Returns the named sections and top-level keys as plain data."""
    return config.model_dump(mode="json", include=set(sections))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested mapping as a flat one with dotted keys. A setting whose value is a mapping stays whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in known_keys():
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@cache
def known_keys() -> tuple[str, ...]:
    """Returns every dotted key of the schema."""
    return tuple(_walk(Config))


def field_of(key: str) -> FieldInfo | None:
    """Returns the schema's field of a dotted key; `None` for a section or an unknown key."""
    if key not in known_keys():
        return None
    *sections, name = key.split(".")
    model: type[BaseModel] = Config
    for section in sections:
        model = cast(type[BaseModel], model.model_fields[section].annotation)
    return model.model_fields[name]


def nearest_key(key: str) -> str:
    """Returns the known key whose last part, or else the whole of it, is most similar to `key`; '' if none is."""
    leaves = {known.rsplit(".", 1)[-1]: known for known in reversed(known_keys())}  # the first section wins
    if match := difflib.get_close_matches(key.rsplit(".", 1)[-1], leaves, n=1):
        return leaves[match[0]]
    return next(iter(difflib.get_close_matches(key, known_keys(), n=1)), "")


def _walk(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _read(path: Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text("utf-8")
        _refuse_unusual(text, path)
        tree = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; give an existing settings file") from error
    except (yaml.YAMLError, ValueError) as error:  # also a date that does not exist, and bytes that are not UTF-8
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must be a mapping of sections and keys, but is a {type(tree).__name__}")
    return flatten(tree)


def _refuse_unusual(text: str, path: Path) -> None:
    """Refuses YAML that settings never need, and that is expensive to read: aliases and deep nesting.

    Raises:
        ConfigError: the text has one of them.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{path}: {len(text)} characters, at most {MAX_CHARACTERS} are read; is it a settings file?")
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}:{line}: alias `*{event.anchor}`; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_LEVELS:
            raise ConfigError(f"{path}:{line}: nested more than {MAX_LEVELS} levels deep")


def _refuse_unknown(layer: Mapping[str, Any], name: str) -> None:
    for key in layer:
        if not isinstance(key, str) or key not in known_keys():
            if key in Config.model_fields:
                raise ConfigError(f"{name}: `{key}` is a section; give settings of it, such as `{_example(key)}`")
            near = nearest_key(key)
            hint = f"; did you mean `{near}`?" if near else "; `myxtts config show` lists the known keys"
            raise ConfigError(f"{name}: unknown setting `{key}`{hint}")


def _example(section: str) -> str:
    return next(key for key in known_keys() if key.startswith(f"{section}."))


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a flat mapping with dotted keys as a nested one; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return tree


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        where = next((origins[known] for known in origins if f"{key}.".startswith(f"{known}.")), "")
        if where:
            lines.append(f"{where}: `{key}` = {hide_credentials(repr(problem['input']))}: {problem['msg']}")
        else:  # the rule is about several settings, which the message names; the input is all of their section
            lines.append(problem["msg"].removeprefix("Value error, "))
    return "\n".join(lines)
