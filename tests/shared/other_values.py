"""Other valid values of settings, with which tests find what depends on a setting."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from model.config.schema import Config

STRINGS = ("another", "1" * 64, "s3://bucket/another", "1" * 32 + ".dir")
"""Values for free text and for settings with a pattern: a name, a SHA-256, an address and the hash of a corpus."""


def keys(config: Config, *sections: str) -> list[str]:
    """Returns the dotted keys of the settings in these sections; a top-level setting is its own key."""
    found = []
    for section in sections:
        value = getattr(config, section)
        found += (
            [f"{section}.{name}" for name in type(value).model_fields] if isinstance(value, BaseModel) else [section]
        )
    return found


def with_another(config: Config, key: str) -> Config:
    """Returns the configuration with another valid value of one setting.

    Raises:
        ValueError: no candidate is valid; add one, or change what the setting depends on in `config`.
    """
    section, _, name = key.partition(".")
    owner = getattr(config, section) if name else config
    field = name or section
    plain = config.model_dump(mode="json")
    for value in _candidates(getattr(owner, field), type(owner).model_fields[field].annotation):
        (plain[section] if name else plain)[field] = value
        try:
            changed = Config.model_validate(plain)
        except ValidationError:
            continue
        if changed != config:
            return changed
    raise ValueError(f"no other value of {key} is valid beside the rest of this configuration")


def _candidates(value: Any, annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif get_origin(annotation) is tuple:
        yield from ((item,) for item in _candidates("", get_args(annotation)[0]))
    elif get_origin(annotation) is dict:
        yield from ({"another": item} for item in _candidates(1, int))
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value + 2, value * 2, value / 2, value - 1, 0.5)
    elif isinstance(value, str):
        yield from STRINGS
    elif value is None:
        yield from (0.5, 1)
