"""Settings: the base classes of sections and steps, their hash, and the types that they share."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

LARGEST = 1e12
"""Largest number that a setting may have."""
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
ModelSize = Literal["xtiny", "tiny", "small", "normal", "big"]
OptimizationLevel = Literal["basic", "enhanced", "experimental", "plateau_breaker"]


class Section(BaseModel):
    """Base of every section: immutable, validated, and without unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # an address may contain a password
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plausible_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Rejects values that pydantic would accept by mistake: booleans as numbers, and numbers above `LARGEST`."""
        name = info.field_name or ""
        if isinstance(value, bool) and not _accepts_bool(cls.model_fields[name].annotation):
            raise ValueError(f"is {str(value).lower()} (YAML's yes, no, on, off); give a value of its type")
        if isinstance(value, int | float) and math.isfinite(value) and abs(value) > LARGEST:
            raise ValueError(f"is {value:g}, larger than any setting")
        return value


def _accepts_bool(annotation: Any) -> bool:
    """Returns whether a type accepts a boolean: `bool`, `Any`, or a union or literal with one of them."""
    return annotation in (bool, Any) or any(map(_accepts_bool, get_args(annotation))) or isinstance(annotation, bool)


class StepSettings(Section):
    """Base of the settings of one pipeline step: exactly the sections that the step reads, each of them complete."""

    @classmethod
    def of(cls, config: BaseModel) -> Self:
        """Returns the sections of this step from the whole configuration."""
        return cls(**{name: getattr(config, name) for name in cls.model_fields})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads settings that `to_json` wrote.

        Raises:
            ValueError: a setting is missing, unknown or out of range. Defaults are not filled in, since the caller may
                have chosen other values.
        """
        settings = cls.model_validate_json(text)
        if missing := _unset(settings):
            raise ValueError(f"{cls.__name__} lacks {', '.join(missing)}; give every setting of the step")
        return settings

    def to_json(self) -> str:
        """Returns the settings as JSON with sorted keys: equal settings give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)


def _unset(section: BaseModel, prefix: str = "") -> list[str]:
    missing = [prefix + name for name in type(section).model_fields if name not in section.model_fields_set]
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel) and f"{prefix}{name}" not in missing:
            missing += _unset(value, f"{prefix}{name}.")
    return missing


def settings_hash(*settings: BaseModel | Mapping[str, Any]) -> str:
    """Returns a hash (16 hex digits) of settings that does not depend on the order of their keys."""
    plain = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in settings]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
