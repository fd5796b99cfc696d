"""A double of the cluster's API, and requests to it."""

import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp_double import Double, serving
from kfp_settings import IMAGES
from kube_double import KubeDouble
from toy_run import ROOT

from components.state import State
from model.config.resolution import resolve
from pipelines.compiling import compile_training
from pipelines.containers import ContainerError, docker_profile
from pipelines.profiles import cluster_profile
from pipelines.training_pipeline import arguments


@pytest.fixture
def logged_out(monkeypatch, tmp_path):
    for name in ("MYXTTS_KFP_TOKEN", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def pipeline() -> str:
    return compile_training(cluster_profile(resolve(overrides=IMAGES).config))


@pytest.fixture(scope="session")
def run_arguments() -> dict[str, str]:
    return arguments(resolve().config, "0" * 32 + ".dir", "s3://data/dvc", "myxtts-generated-tiny")


@pytest.fixture(scope="session")
def engine() -> None:
    """The engine and the images of this checkout."""
    try:
        profile = docker_profile(resolve().config)
    except ContainerError as error:
        pytest.skip(str(error))
    assert set(profile.images.values()) == {profile.images["train"], profile.images["resolve_data"]}


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def host(double):
    with serving(double) as address:
        yield address


@pytest.fixture(scope="session")
def untrained_voice(tmp_path_factory, generated_features, small_settings) -> Path:
    """A voice of two steps, which speaks with Griffin-Lim."""
    from model.training.trainer import train

    config = resolve(None, None, {**small_settings, "training.max_steps": 2}).config
    return train(config, generated_features, tmp_path_factory.mktemp("untrained")).voice


@pytest.fixture
def myxtts(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Returns a function from arguments of `myxtts`, run in this process, to (exit status, stdout, stderr)."""
    from pipelines.cli.main import main

    # What a command changes for the life of its process ends with the test.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def ask_about(myxtts, monkeypatch) -> Callable[[State], Callable[..., Any]]:
    """Returns a function from a state to a function that runs `myxtts` on it in this process and returns its JSON."""

    def about(state: State) -> Callable[..., Any]:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "KUBERNETES_SERVICE_HOST"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("MYXTTS_STATE", str(state.root))
        monkeypatch.chdir(ROOT)

        def answer(*arguments: str) -> Any:
            status, output, errors = myxtts(*arguments, "--json")
            assert status == 0, errors
            return json.loads(output)

        return answer

    return about


@pytest.fixture
def kube(tmp_path, monkeypatch):
    """A double of the Kubernetes API, to which the kubeconfig of this test leads."""
    from kubernetes.config import kube_config

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    kubernetes = KubeDouble()
    with kubernetes.serving(tmp_path) as kubeconfig:
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        yield kubernetes
