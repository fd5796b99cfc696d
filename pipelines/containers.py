"""`--target docker`: the pipeline's steps in containers on this machine, started by KFP's Docker runner.

The state is mounted at its own path, so that paths are the same inside and outside of containers. Containers run as an
ordinary user, without capabilities, on a read-only file system.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.lineage import git_state
from components.state import State
from components.trainjob import IMAGE_USER
from model.config.schema import Config
from model.config.targets import DockerConfig
from model.errors import MyXTTSError
from model.files import write_json
from pipelines.profiles import STEPS, STUDY_STEPS, Profile, image_kind

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

LABEL = "myxtts.run"
COMMIT_LABEL = "org.opencontainers.image.revision"
STOP_SECONDS = 20.0

logger = logging.getLogger(__name__)


class ContainerError(MyXTTSError):
    """The Docker engine cannot run the steps; the message says how to fix it."""


def docker_profile(config: Config, pinned: bool = True) -> Profile:
    """Returns the profile of this machine's images.

    Args:
        config: Settings of the target.
        pinned: Whether images are named by content, so that a rebuilt image makes results stale; this asks the engine.
            Otherwise they are named by tag.

    Raises:
        ContainerError: no engine answers, or an image has not been built.
    """
    if config.launch.launcher == "trainjob":
        raise ContainerError("launch.launcher = trainjob needs a cluster; use inline or torchrun with --target docker")
    name = _pinned if pinned else _tagged
    kinds = {kind: name(config.docker, kind) for kind in sorted({image_kind(step) for step in STEPS})}
    images = {step: kinds[image_kind(step)] for step in (*STEPS, *STUDY_STEPS)}
    return Profile(name="docker", images=images, retries=config.docker.retries, launch=config.launch)


def _tagged(settings: DockerConfig, kind: str) -> str:
    return f"{settings.image}-{kind}:{settings.tag}"


def _pinned(settings: DockerConfig, kind: str) -> str:
    """Returns a tag that only this image has, since KFP's runner does not accept image ids."""
    import docker

    name, tag = f"{settings.image}-{kind}", settings.tag
    with _engine() as engine:
        try:
            image = engine.images.get(f"{name}:{tag}")
        except docker.errors.ImageNotFound as error:
            raise ContainerError(f"the image {name}:{tag} is not on this machine; run `make images` first") from error
        built, here = image.labels.get(COMMIT_LABEL, "unknown"), git_state(Path(__file__).parent)["git.sha"]
        if built != here:
            logger.warning(
                "%s:%s was built from commit %s, but this is %s; `make images` rebuilds it", name, tag, built, here
            )
        content = str(image.id).removeprefix("sha256:")[:12]
        image.tag(name, f"content-{content}")
    return f"{name}:content-{content}"


def _engine() -> "AbstractContextManager[DockerClient]":
    """Returns a client of the engine, closed by `with`.

    Raises:
        ContainerError: no engine answers.
    """
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise ContainerError(
            f"no Docker engine answers ({error}); start one (or set DOCKER_HOST), or use --target local"
        ) from error
    return contextlib.closing(client)


def runner_arguments(config: DockerConfig, state: State, run_id: str, variables: Iterable[str]) -> dict[str, Any]:
    """Returns the arguments of KFP's Docker runner for all containers of a run, as JSON data.

    It contains only the names of environment variables; their values, secrets among them, come from the environment of
    the worker process.

    Args:
        config: Settings of the target.
        state: State folder, mounted at its own path.
        run_id: Value of the label that marks the containers of the run.
        variables: Names of the environment variables of the steps.

    Raises:
        ContainerError: a variable of `docker.pass_environment` is not set.
    """
    if missing := [name for name in config.pass_environment if name not in os.environ]:
        raise ContainerError(
            f"docker.pass_environment names {', '.join(missing)}, which is not set in this environment; set it"
        )
    root = str(state.root)
    arguments = {
        "mounts": [{"Type": "bind", "Source": root, "Target": root, "ReadOnly": False}],
        "environment": [*variables, *config.pass_environment],
        "user": container_user(config),
        "network_mode": config.network,
        "mem_limit": config.memory.lower().removesuffix("i"),
        "shm_size": config.shared_memory.lower().removesuffix("i"),
        "labels": {LABEL: run_id},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},
        "init": True,
    }
    if config.gpus:
        arguments["device_requests"] = [{"Driver": "", "Count": config.gpus, "Capabilities": [["gpu"]]}]
    return arguments


def container_user(config: DockerConfig) -> str:
    """Returns `uid:gid` of the containers, by default never root's."""
    if config.user:
        return config.user
    return f"{os.geteuid()}:{os.getegid()}" if os.geteuid() else f"{IMAGE_USER}:{IMAGE_USER}"


def hand_over(state: State, user: str) -> None:
    """Changes the owner of the state to the containers' user if this process is root, which keeps its access."""
    if os.geteuid():
        return
    uid, gid = (int(part) for part in user.split(":"))
    os.lchown(state.root, uid, gid)
    for folder, folders, files in os.walk(state.root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.lstat(path).st_uid != uid:
                os.lchown(path, uid, gid)


def stop(run_id: str, grace: float = STOP_SECONDS) -> None:
    """Interrupts the containers of a run, so that training saves a checkpoint, and kills them after `grace` seconds."""
    import docker

    with _engine() as engine:
        deadline = time.monotonic() + grace
        for container in _containers(engine, run_id):
            try:  # the engine would signal only the shell that starts the step
                container.exec_run(["sh", "-c", "kill -INT -1"], detach=True)
            except docker.errors.APIError:
                continue  # it has ended meanwhile
        while time.monotonic() < deadline and _containers(engine, run_id):
            time.sleep(0.2)
        for container in _containers(engine, run_id):
            try:
                container.kill()
            except docker.errors.APIError:
                continue


def _containers(engine: "DockerClient", run_id: str) -> "list[Container]":
    """Returns the running containers of a run."""
    return engine.containers.list(filters={"label": f"{LABEL}={run_id}"}, ignore_removed=True)


def record_containers(state: State, run_id: str, started: float) -> list[dict[str, Any]]:
    """Writes and returns the engine's list of the containers of a run in order, with image and exit status."""
    with _engine() as engine:
        filters: dict[str, Any] = {"label": f"{LABEL}={run_id}", "type": "container", "event": ["start", "die"]}
        now: Any = f"{time.time():.6f}"  # the engine accepts fractions of a second, the type stubs do not
        events = list(engine.events(since=int(started), until=now, filters=filters, decode=True))
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        actor = event["Actor"]
        if event["Action"] == "start":
            found[actor["ID"]] = {"container": actor["ID"][:12], "image": actor["Attributes"]["image"]}
            found[actor["ID"]]["started"] = event["timeNano"] / 1e9
        else:
            known = found.setdefault(actor["ID"], {"container": actor["ID"][:12]})
            known["exit_status"] = int(actor["Attributes"]["exitCode"])
            known["seconds"] = round(event["timeNano"] / 1e9 - known.get("started", started), 2)
    listed = list(found.values())
    write_json(state.runs / run_id / "containers.json", listed)
    return listed
