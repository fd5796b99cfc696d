"""Describes why a run cannot be resumed: the settings and data that differ from those of its checkpoint."""

from collections.abc import Mapping
from typing import Any

MOST_SHOWN = 5
"""Number of differences that are named."""


def describe_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Returns what differs between two runs, such as `training.batch_size is 16 instead of 8`.

    Args:
        saved: Settings and hashes by dotted key, as the checkpoint holds them; empty in checkpoints of older versions.
        current: The same of the current run.
    """
    if not saved:
        return "its settings or its data differ"
    names = [name for name in sorted(saved.keys() | current.keys()) if saved.get(name) != current.get(name)]
    shown = [f"{name} is {_value(current, name)} instead of {_value(saved, name)}" for name in names[:MOST_SHOWN]]
    if len(names) > MOST_SHOWN:
        shown.append(f"and {len(names) - MOST_SHOWN} more")
    return ", ".join(shown) or "another version of the program made it"


def _value(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "not set"
