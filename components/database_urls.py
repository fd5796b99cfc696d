"""Addresses of MLflow and of the studies that name a file: made absolute once, since steps run in folders of their own.

Relative to the current folder, one address would mean another file in every process.
"""

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MYXTTS_STUDY_STORAGE")
SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]*)(.*)", re.DOTALL)
"""Scheme, file and options of the address of an SQLite database."""
NAMES = ("databricks", "databricks-uc", "uc")
"""Addresses of MLflow that are neither URLs nor folders."""


def absolute_url(url: str) -> str:
    """Returns an address whose file or folder, if it names one, is absolute; other addresses are unchanged."""
    if found := SQLITE.fullmatch(url):
        scheme, file, options = found.groups()
        memory = not file or file.startswith((":memory:", "file:"))
        return url if memory else f"{scheme}{Path(file).expanduser().absolute()}{options}"
    if url.startswith("file:") and not url.startswith("file:/"):
        return Path(url.removeprefix("file:")).absolute().as_uri()
    if url and ":" not in url and url not in NAMES:
        return str(Path(url).expanduser().absolute())
    return url


def make_absolute(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes the addresses in environment variables absolute, for this process and those that it starts."""
    for name in VARIABLES:
        if name in environment:
            environment[name] = absolute_url(environment[name])
