"""`make voice-image`: an image with a registered voice, which serves it as an ordinary user without a network."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_voice import NAME, SECONDS, check_answers, register_champion, wait_for

ROOT = Path(__file__).parents[2]
IMAGE = "myxtts-voice-of-a-test"

pytestmark = pytest.mark.docker


def make(*options: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `make voice-image` with the packages of this process."""
    command = ["make", "--old-file=.venv/installed", "voice-image", f"BIN={Path(sys.executable).parent}", *options]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=SECONDS
    )


@pytest.fixture
def container(state, untrained_voice, tmp_path) -> Iterator:
    """Container of an image with the champion; nothing in it can be written but /tmp."""
    import docker

    register_champion(state, untrained_voice, tmp_path / "evaluation")
    address = f"sqlite:///{state.tracking_database}"
    built = make(f"MODEL=models:/{NAME}@champion", f"VOICE_IMAGE={IMAGE}", MLFLOW_TRACKING_URI=address)
    assert built.returncode == 0, built.stderr
    engine = docker.from_env()
    running = engine.containers.run(
        IMAGE, detach=True, ports={"8080/tcp": ("127.0.0.1", None)}, read_only=True, tmpfs={"/tmp": "exec"},
        cap_drop=["ALL"],
    )  # fmt: skip
    try:
        yield running
    finally:
        running.remove(force=True)
        engine.images.remove(IMAGE, force=True)
        engine.close()


def address_of(container) -> str:
    container.reload()
    return f"http://127.0.0.1:{container.ports['8080/tcp'][0]['HostPort']}"


def log_of_end(container) -> str | None:
    container.reload()
    return None if container.status == "running" else container.logs().decode()


def test_the_image_of_a_voice_speaks_refuses_bad_requests_and_reports_its_health(container):
    address = address_of(container)
    wait_for(f"{address}/ping", lambda: log_of_end(container))
    check_answers(f"{address}/invocations")
    assert container.exec_run(["id", "-u"]).output.strip() == b"10001"
    check = container.attrs["Config"]["Healthcheck"]["Test"]
    assert container.exec_run(check[1:]).exit_code == 0
    deadline = time.monotonic() + SECONDS
    while container.attrs["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < deadline, container.attrs["State"]["Health"]
        time.sleep(1.0)
        container.reload()


@pytest.mark.parametrize(
    ("options", "reason"),
    [((), "which voice? MODEL=models:/"), (("MODEL=models:/m/1", "TAG=never-built"), "never-built: run `make images`")],
)
def test_what_is_missing_is_named(options, reason):
    refused = make(*options)
    assert refused.returncode != 0
    assert reason in refused.stdout
