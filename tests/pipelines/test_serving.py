"""`mlflow models serve` on a registered voice, as docs/registry.md shows it: a real server in a process of its own."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import soundfile
from evaluated_voice import evaluated_voice

from components.register.run import run as register
from components.registry import Registry

NAME = "myxtts-toy-xtiny"
METRICS = {"mel_cepstral_distortion": 6.25, "character_error_increase": 0.125, "alignment_monotonicity": 0.96875}
SECONDS = 300.0

pytestmark = pytest.mark.slow


@pytest.fixture
def server(state, untrained_voice, tmp_path) -> Iterator[str]:
    """Address of a server of the champion."""
    register(**evaluated_voice(state, untrained_voice, tmp_path / "evaluation", METRICS), name=NAME)
    Registry(state).promote(NAME, "1", "", "first")
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
            wait_for(f"http://127.0.0.1:{port}/ping", process, log)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, 15)
            process.wait(60)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if requests.get(address, timeout=60).ok:
                return
        except requests.ConnectionError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def test_a_server_speaks_and_answers_bad_requests_with_the_reason(server):
    rows = [{"text": "Good morning.", "language": "en"}]
    answer = requests.post(server, json={"dataframe_records": rows, "params": {"speed": 1.5}}, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    [row] = answer.json()["predictions"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(row["audio"])))
    assert rate == row["sample_rate"]
    assert len(samples) / rate == pytest.approx(row["seconds"])
    assert row["seconds"] > 0.1
    for bad, reason in (
        ({"dataframe_records": [{"text": "Salut.", "language": "xx"}]}, "unknown language 'xx'"),
        ({"dataframe_records": [{"text": "Hello.", "speaker": "nobody"}]}, "unknown speaker 'nobody'"),
        ({"dataframe_records": [{"language": "en"}]}, "text"),
    ):
        refused = requests.post(server, json=bad, timeout=SECONDS)
        assert refused.status_code == 400
        assert reason in json.loads(refused.text)["message"]
