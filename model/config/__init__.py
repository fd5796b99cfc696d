"""Settings: the base of every section, hashes, and the names of sizes and levels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]


Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of every section: immutable, unknown keys refused, values checked once."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True, allow_inf_nan=False
    )


def settings_hash(*settings: BaseModel | Mapping[str, Any]) -> str:
    """Hash (16 hex digits) of settings; equal settings give equal hashes, whatever their order of keys."""
    plain = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in settings]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


ModelSize = Literal["xtiny", "tiny", "small", "normal", "big"]


OptimizationLevel = Literal["basic", "enhanced", "experimental", "plateau_breaker"]
