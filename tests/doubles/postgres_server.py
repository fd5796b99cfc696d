"""A PostgreSQL server for one test, where PostgreSQL is installed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres_server(*databases: str) -> Iterator[str]:
    """Serves databases; yields the address without the database's name. Skips the test where that is impossible."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        yield from _served(Path(name), databases)


def _binary(name: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    if found is None:
        pytest.skip(f"{name} of PostgreSQL is not installed")
    return found


def _served(folder: Path, databases: tuple[str, ...]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = []
    if not os.geteuid():  # PostgreSQL refuses to be root
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)
    initialize = [_binary("initdb"), "-D", str(folder), "-U", "myxtts", "-A", "trust", "--no-sync"]
    subprocess.run([*user, *initialize], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    options = ["-D", str(folder), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-F"]
    process = subprocess.Popen([*user, _binary("postgres"), *options], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        connect = [_binary("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "myxtts", "-d", "postgres", "-c"]
        deadline = time.monotonic() + 120
        while subprocess.run([*connect, "select 1"], capture_output=True).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for name in databases:
            subprocess.run([*connect, f"create database {name}"], check=True, capture_output=True)
        yield f"postgresql+pg8000://myxtts@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # at once, whoever is still connected
        process.wait(60)
