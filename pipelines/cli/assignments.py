"""`--set KEY=VALUE` on the command line as settings by dotted key."""

from typing import Any

import click
import yaml


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
        given[key.strip()] = yaml.safe_load(value)
    return given
