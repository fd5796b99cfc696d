"""A double of the cluster's API, and what is asked of it."""

import pytest
from kfp_double import Double, serving
from kfp_settings import IMAGES
from kube_double import KubeDouble

from model.config import resolve
from pipelines.compiling import compile_training
from pipelines.profiles import cluster_profile
from pipelines.training import arguments


@pytest.fixture
def logged_out(monkeypatch, tmp_path):
    for name in ("MYXTTS_KFP_TOKEN", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def pipeline() -> str:
    return compile_training(cluster_profile(resolve(overrides=IMAGES).config))


@pytest.fixture(scope="session")
def told() -> dict[str, str]:
    return arguments(resolve().config, "0" * 32 + ".dir", "s3://data/dvc", "myxtts-generated-tiny")


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def host(double):
    with serving(double) as address:
        yield address


@pytest.fixture
def kube(tmp_path, monkeypatch):
    """A double of the Kubernetes API, to which the kubeconfig of this test leads."""
    from kubernetes.config import kube_config

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    kubernetes = KubeDouble()
    with kubernetes.serving(tmp_path) as kubeconfig:
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        yield kubernetes
