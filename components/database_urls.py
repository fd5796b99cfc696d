"""Addresses of the databases of MLflow and of studies; those of local files are made absolute.

Steps run in different folders, in which a relative address would name different files.
"""

import os
import re
import socket
from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import urlsplit

from model.errors import MyXTTSError

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MYXTTS_STUDY_STORAGE")
SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]*)(.*)", re.DOTALL)
"""Scheme, file and options of the address of an SQLite database."""
POSTGRES_PORT = 5432
ANSWER_SECONDS = 5.0
NAMES = ("databricks", "databricks-uc", "uc")
"""Addresses of MLflow that are neither URLs nor folders."""


def absolute_url(url: str) -> str:
    """Returns the address with an absolute path if it names a local file or folder, else unchanged."""
    if found := SQLITE.fullmatch(url):
        scheme, file, options = found.groups()
        memory = not file or file.startswith((":memory:", "file:"))
        return url if memory else f"{scheme}{Path(file).expanduser().absolute()}{options}"
    if url.startswith("file:") and not url.startswith("file:/"):
        return Path(url.removeprefix("file:")).absolute().as_uri()
    if url and ":" not in url and url not in NAMES:
        return str(Path(url).expanduser().absolute())
    return url


class DatabaseError(MyXTTSError):
    """A database server does not answer; the message says which and the fix."""


def require_server(url: str, variable: str) -> None:
    """Refuses a PostgreSQL server that does not answer within seconds; clients would try for minutes.

    Args:
        url: Address of a database; other schemes than PostgreSQL's, and addresses without a host, are not checked.
        variable: Environment variable that contains the address, for the error message.

    Raises:
        DatabaseError: nothing accepts a connection there.
    """
    if not url.startswith("postgresql"):
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or POSTGRES_PORT
    except ValueError as error:
        raise DatabaseError(f"{variable} is no address of a database ({error})") from error
    if not host:
        return
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise DatabaseError(
            f"the database server {host}:{port} does not answer ({error}); start it, or correct {variable}"
        ) from error


def make_absolute(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes the addresses in environment variables absolute, for this process and those that it starts."""
    for name in VARIABLES:
        if name in environment:
            environment[name] = absolute_url(environment[name])
