"""A real MLflow server in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 180.0


@contextmanager
def mlflow_server(
    folder: Path, backend: str, artifacts: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Starts a server, yields its address, and ends it afterwards.

    Args:
        folder: Its working folder, and that of its log.
        backend: URI of its database.
        artifacts: Where it stores artifacts, which only it reaches.
        options: Further options of `mlflow server`.
        environment: Environment variables beside those of this process.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address, log = f"http://127.0.0.1:{port}", folder / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", *options, "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", port, "--backend-store-uri", backend, "--artifacts-destination", artifacts]
    variables = {**os.environ, **(environment or {}), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output, cwd=folder)
        try:
            _wait_for(f"{address}/health", process, log)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Waits until an address answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
