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
def postgres_server(*databases: str, passwords: bool = False) -> Iterator[str]:
    """Serves databases; yields the address without the database's name. Skips the test where that is impossible.

    Args:
        databases: Their names.
        passwords: Whether roles log in with their passwords; that of the superuser `myxtts` is `superuser`.
    """
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        yield from _served(Path(name), databases, passwords)


def executable(name: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    if found is None:
        pytest.skip(f"{name} of PostgreSQL is not installed")
    return found


def _served(folder: Path, databases: tuple[str, ...], passwords: bool) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = []
    if not os.geteuid():  # PostgreSQL refuses to be root
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)
    method = ["-A", "trust"]
    if passwords:
        secret = folder.with_name(f"{folder.name}-password")
        secret.write_text("superuser")
        secret.chmod(0o644)
        method = ["-A", "scram-sha-256", f"--pwfile={secret}"]
    initialize = [executable("initdb"), "-D", str(folder), "-U", "myxtts", *method, "--no-sync"]
    subprocess.run([*user, *initialize], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    options = ["-D", str(folder), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-F"]
    process = subprocess.Popen([*user, executable("postgres"), *options], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        connect = [executable("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "myxtts", "-d", "postgres", "-c"]
        deadline = time.monotonic() + 120
        environment = {**os.environ, "PGPASSWORD": "superuser"}
        while subprocess.run([*connect, "select 1"], capture_output=True, env=environment).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for name in databases:
            subprocess.run([*connect, f"create database {name}"], check=True, capture_output=True, env=environment)
        yield f"postgresql+pg8000://myxtts@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # at once, whoever is still connected
        process.wait(60)
        if passwords:
            secret.unlink()
