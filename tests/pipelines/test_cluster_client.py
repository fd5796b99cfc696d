"""Address of the API, credentials, and checks of the installation against the settings."""

import json
import logging

import pytest
from kfp_double import Double, serving
from kfp_settings import COMMIT, connect, settings

from pipelines import cluster_client
from pipelines.cluster_client import SERVICE, ClusterError, Server, Unreachable, check_server, make_client

pytestmark = pytest.mark.usefixtures("logged_out")


@pytest.fixture
def in_pod(monkeypatch, host, tmp_path):
    """The environment of a pod: the service is the double, and the service account has a projected token."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    (tmp_path / "token").write_text("projected\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    asked = []

    class Service(str):
        def format(self, **named):
            asked.append(str.format(self, **named))
            return host

    monkeypatch.setattr(cluster_client, "SERVICE", Service(SERVICE))
    return asked


@pytest.mark.parametrize("kfp_namespace", ["kubeflow", "pipelines"])
def test_a_pod_asks_the_service_in_the_namespace_of_kubeflow_pipelines(in_pod, double, kfp_namespace):
    double.tokens = {"projected": {"team"}}
    assert connect("", kfp_namespace=kfp_namespace).runs(1) == []
    assert in_pod[0] == f"http://ml-pipeline.{kfp_namespace}.svc.cluster.local:8888"


def test_a_pod_that_is_given_a_token_file_uses_it_instead_of_its_own(in_pod, double, tmp_path):
    double.tokens = {"given": {"team"}}
    (tmp_path / "given").write_text("given\n")
    cluster = connect("", token_file=str(tmp_path / "given"))
    assert cluster.runs(1) == []
    double.tokens = {"renewed": {"team"}}
    (tmp_path / "given").write_text("renewed\n")
    assert cluster.runs(1) == []


def test_a_token_of_the_environment_goes_before_the_pods_own(in_pod, double, monkeypatch):
    double.tokens = {"mine": {"team"}}
    monkeypatch.setenv("MYXTTS_KFP_TOKEN", "mine")
    assert connect("").runs(1) == []


def test_a_pod_without_a_projected_token_asks_without_one(in_pod, double, monkeypatch, tmp_path):
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "nowhere"))
    assert connect("").runs(1) == []  # as in a single-user installation
    double.tokens = {"projected": {"team"}}
    with pytest.raises(ClusterError, match="401"):
        connect("").runs(1)


def test_a_token_without_an_address_is_sent_nowhere(monkeypatch):
    monkeypatch.setenv("MYXTTS_KFP_TOKEN", "secret")
    with pytest.raises(ClusterError, match=r"cluster\.host is not set"):
        make_client(settings(""))


@pytest.mark.parametrize(
    ("tag", "wanted", "refused"),
    [
        ("2.16.1", "2.17", True),
        ("2.17.0", "2.17", False),
        ("v2.18.0-rc.1", "2.17", False),
        ("2.9.0", "2.16", True),
        ("3.0.0", "2.17", False),
    ],
)
def test_a_server_older_than_the_settings_say_gets_nothing(host, double, pipeline, run_arguments, tag, wanted, refused):
    """It would silently drop the platform document with volumes and secrets."""
    double.tag_name = tag
    cluster = connect(host, backend_version=wanted)
    if not refused:
        assert cluster.trigger(pipeline, run_arguments, "generated", COMMIT)[1]
        return
    for start in (
        lambda: cluster.trigger(pipeline, run_arguments, "generated", COMMIT),
        lambda: cluster.schedule(pipeline, run_arguments, "generated", COMMIT, "@daily", "nightly"),
    ):
        with pytest.raises(ClusterError, match=f"set cluster.backend_version to '{tag[:-2]}'"):
            start()
    assert not double.pipelines
    assert not double.experiments


@pytest.mark.parametrize("multi_user", [True, False])
def test_mode_and_release_are_known_through_the_web_interface_too(multi_user):
    """Its own server answers the health endpoint, with other field names."""
    double = Double(multi_user)
    double.through_ui, double.tag_name = True, "2.16.1"
    with serving(double) as host:
        assert connect(host).server == Server(multi_user, (2, 16))
        double.ui_ready = False
        with pytest.raises(Unreachable, match="its API server does not"):
            _ = connect(host).server


@pytest.mark.parametrize("page", ["<html>Log in</html>", "[]", '{"status": "ok"}'])
def test_a_login_page_in_place_of_the_api_is_named(host, double, monkeypatch, page):
    monkeypatch.setattr(double, "answer", lambda *_: json.loads(page) if page[0] != "<" else page)
    with pytest.raises(ClusterError, match=r"perhaps from a login page; check cluster\.host"):
        _ = connect(host).server


def test_from_another_machine_the_service_is_reached_through_the_kubernetes_api(kube):
    """The service is in the namespace of Kubeflow Pipelines, not in that of the runs."""
    client = make_client(settings("", kfp_namespace="pipelines"))
    address = client._existing_config.host
    assert address.endswith("/api/v1/namespaces/pipelines/services/ml-pipeline:http/proxy/")
    assert client.get_user_namespace() != "kubeflow"


def test_a_server_that_does_not_report_its_release_is_used_with_a_warning(
    host, double, pipeline, run_arguments, caplog
):
    double.tag_name = "unknown"
    with caplog.at_level(logging.WARNING):
        assert connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)[1]
    assert "does not report its release" in caplog.text


@pytest.mark.parametrize("start", ["trigger", "schedule"])
def test_a_single_user_server_refuses_another_namespace_than_its_own(pipeline, run_arguments, start):
    """It would run the pods in a namespace without volume, secrets and service account."""
    double = Double(multi_user=False)
    with serving(double) as host:
        cluster = connect(host)
        more = () if start == "trigger" else ("@daily", "nightly")
        with pytest.raises(ClusterError, match=r"single-user.*its own namespace kubeflow, not in team"):
            getattr(cluster, start)(pipeline, run_arguments, "generated", COMMIT, *more)
        assert not double.pipelines
        assert cluster.workflow_namespace == "kubeflow"  # where pods of its runs are looked for
        assert connect(host, namespace="kubeflow").trigger(pipeline, run_arguments, "generated", COMMIT)[1]


def test_a_multi_user_servers_runs_are_in_the_namespace_of_the_settings(host):
    cluster = connect(host)
    check_server(cluster.settings, Server(multi_user=True, release=(2, 17)))
    assert cluster.workflow_namespace == "team"
