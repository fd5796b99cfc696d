"""`mlflow models serve` on a registered voice, as docs/registry.md shows it: a real server in a process of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_voice import NAME, check_answers, register_champion, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def server(state, untrained_voice, tmp_path) -> Iterator[str]:
    """Address of a server of the champion."""
    register_champion(state, untrained_voice, tmp_path / "evaluation")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{state.tracking_database}"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts `uvicorn`
    log = tmp_path / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--env-manager", "local", "--port", str(port)],
            env=environment, stdout=file, stderr=file, cwd=tmp_path, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(
                f"http://127.0.0.1:{port}/ping", lambda: None if process.poll() is None else log.read_text("utf-8")
            )
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, 15)
            process.wait(60)


def test_a_server_speaks_and_answers_bad_requests_with_the_reason(server):
    check_answers(server)
