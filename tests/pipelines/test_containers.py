"""`--target docker`: the arguments of containers and, with an engine and images, a run of the pipeline in them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from docker_double import DockerDouble
from toy_run import SETTINGS

from components.state import State
from model.config.resolution import resolve
from pipelines import containers
from pipelines.containers import ContainerError, container_user, docker_profile, runner_arguments
from pipelines.run_records import RunRecord

ROOT = Path(__file__).parents[2]


def docker_config(**changes):
    return resolve(overrides={f"docker.{key}": value for key, value in changes.items()}).config.docker


def given(state: State, **changes) -> dict:
    return runner_arguments(docker_config(**changes), state, "run-1", ["MYXTTS_STATE"])


def test_the_state_has_one_path_inside_and_outside(tmp_path):
    (mount,) = given(State(tmp_path))["mounts"]
    assert mount["Source"] == mount["Target"] == str(tmp_path)


def test_containers_have_no_more_rights_than_they_need(tmp_path):
    found = given(State(tmp_path))
    assert (found["cap_drop"], found["security_opt"], found["read_only"]) == (["ALL"], ["no-new-privileges"], True)
    assert found["network_mode"] == "none"


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("network", "servers", ("network_mode", "servers")),
        ("memory", "3G", ("mem_limit", "3g")),
        ("shared_memory", "512Mi", ("shm_size", "512m")),
        ("user", "7:7", ("user", "7:7")),
        ("gpus", 2, ("device_requests", [{"Driver": "", "Count": 2, "Capabilities": [["gpu"]]}])),
    ],
)
def test_settings_reach_the_engine(tmp_path, key, value, found):
    assert given(State(tmp_path), **{key: value})[found[0]] == found[1]


def test_of_variables_only_names_are_written_down(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    found = given(State(tmp_path), pass_environment=["AWS_SECRET_ACCESS_KEY"])
    assert found["environment"] == ["MYXTTS_STATE", "AWS_SECRET_ACCESS_KEY"]
    assert "hunter2" not in json.dumps(found)


def test_a_variable_that_is_not_set_is_named(tmp_path):
    with pytest.raises(ContainerError, match="NOT_SET_HERE"):
        given(State(tmp_path), pass_environment=["NOT_SET_HERE"])


@pytest.mark.parametrize(("uid", "user"), [(0, "10001:10001"), (1000, "1000:1000")])
def test_containers_are_never_root(uid, user, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "getegid", lambda: uid)
    assert container_user(docker_config()) == user


def test_without_an_engine_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(ContainerError, match=r"no Docker engine answers .* --target local"):
        docker_profile(resolve().config)


@pytest.fixture
def docker_double(monkeypatch):
    """An engine with both images, built from the commit of the code, `abc123`."""
    double = DockerDouble()
    double.build("speech-data:v7", "d", "abc123")
    double.build("speech-train:v7", "7", "abc123")
    monkeypatch.setenv("MYXTTS_GIT_SHA", "abc123")
    with double.serving() as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        yield double


def named_images() -> dict[str, str]:
    return dict(docker_profile(resolve(overrides={"docker.image": "speech", "docker.tag": "v7"}).config).images)


def test_images_are_named_by_their_content(docker_double, caplog):
    """A tag such as `latest` does not change when the image is rebuilt, so cached results would stay valid."""
    images = named_images()
    assert images["train"] == images["gate"] == f"speech-train:content-{'7' * 12}"
    assert images["resolve_data"] == f"speech-data:content-{'d' * 12}"
    assert docker_double.images[images["train"]] == docker_double.images["speech-train:v7"]
    docker_double.build("speech-train:v7", "8", "abc123")
    assert named_images()["train"] == f"speech-train:content-{'8' * 12}"
    assert docker_double.images[images["train"]] == f"sha256:{'7' * 64}"
    assert not caplog.records


def test_an_image_of_another_commit_is_warned_of(docker_double, caplog):
    docker_double.build("speech-train:v7", "7", "def456")
    named_images()
    (record,) = caplog.records
    assert record.getMessage().startswith("speech-train:v7 was built from commit def456, but this is abc123")


def test_an_image_that_was_not_built_is_named(docker_double):
    del docker_double.images["speech-data:v7"]
    with pytest.raises(ContainerError, match="image speech-data:v7 is not on this machine; run `make images`"):
        named_images()


def start(state: State, **changes) -> subprocess.Popen:
    chosen = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    options = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "pipelines.cli.main", "pipeline", "run", "--target", "docker", *options]
    environment = {**os.environ, "MYXTTS_STATE": str(state.root)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def newest(state: State) -> RunRecord:
    return RunRecord.load(max(state.runs.glob("run-*"), key=lambda path: path.stat().st_mtime))


@pytest.fixture(scope="module")
def state(tmp_path_factory, engine) -> State:
    """A state with the corpus."""
    from pipelines.project import open_project

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYXTTS_STATE", str(tmp_path_factory.mktemp("docker") / "state"))
        project = open_project(None, None, SETTINGS)
        project.make_data()
    return project.state


def wait_until(condition, process: subprocess.Popen, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.docker
def test_every_step_runs_in_a_container_of_its_own_as_an_ordinary_user(state):
    process = start(state)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    record = newest(state)
    listed = json.loads((record.folder / "containers.json").read_text())
    assert [item["exit_status"] for item in listed] == [0] * len(record.steps)
    assert len({item["container"] for item in listed}) == len(record.steps)
    in_data_image = [step for step, item in zip(record.steps, listed, strict=True) if "-data:" in item["image"]]
    assert in_data_image == ["resolve_data"]
    results = {path.name: path.read_text("utf-8") for path in (record.folder / "results").iterdir()}
    metrics = {"train.json", "evaluate.json", "gate.json"}
    pages = {"configure.md", "resolve_data.html", "evaluate.html", "gate.md", "gate.html"}
    assert results.keys() == metrics | pages | {"register.json"}
    assert all(json.loads(results[name]) for name in metrics)
    assert json.loads(results["register.json"])["uri"].startswith("models:/")
    assert 0 not in {path.stat().st_uid for path in (state.root / "training").rglob("*")}


@pytest.mark.docker
def test_a_killed_container_is_replaced_and_training_resumes(state):
    import docker

    before = set(state.runs.iterdir()) if state.runs.is_dir() else set()
    process = start(
        state, training__max_steps=3000, training__evaluation_interval=3000, training__checkpoint_interval=5
    )
    engine = docker.from_env()

    def log() -> str:
        (folder,) = (set(state.runs.iterdir()) if state.runs.is_dir() else set()) - before or {state.root}
        return (folder / "log.txt").read_text() if (folder / "log.txt").is_file() else ""

    wait_until(lambda: len(re.findall(r'"done": (\d+)', log())) > 2, process)
    (container,) = engine.containers.list(filters={"label": f"{containers.LABEL}={newest(state).id}"})
    container.kill()
    wait_until(lambda: len(re.findall(r"steps \d+ to 3000", log())) > 1, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not engine.containers.list(filters={"label": f"{containers.LABEL}={newest(state).id}"})
    starts = [int(step) for step in re.findall(r"steps (\d+) to 3000", log())]
    assert starts[0] == 0
    assert starts[1] > 0
    engine.close()
