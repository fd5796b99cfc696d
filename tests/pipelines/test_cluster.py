"""Triggering and watching runs: the real client of Kubeflow Pipelines against a strict double of its API."""

import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from kfp_double import serving
from kfp_settings import COMMIT, IMAGES, connect, settings
from kube_double import KubeDouble

from components.kube import KubeError
from model.config import resolve
from pipelines.cluster import Cluster, run_name
from pipelines.cluster_client import ClusterError, Unreachable
from pipelines.compiling import compile_training
from pipelines.pod_logs import pod_logs
from pipelines.profiles import cluster_profile

pytestmark = pytest.mark.usefixtures("logged_out")


def test_a_run_is_started_from_the_version_of_its_commit(host, double, pipeline, told):
    run, started = connect(host).trigger(pipeline, told, "generated", COMMIT)
    assert started
    sent = double.runs[run.id]
    version = double.versions[sent["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"].startswith(COMMIT[:12])
    assert double.specs[version["pipeline_version_id"]] == pipeline
    assert sent["runtime_config"]["parameters"] == told
    assert sent["service_account"] == "myxtts-runner"
    assert run.link == f"{host}/#/runs/details/{run.id}"


def test_an_equal_run_is_not_started_twice(host, double, pipeline, told):
    cluster = connect(host)
    first, _ = cluster.trigger(pipeline, told, "generated", COMMIT)
    again, started = cluster.trigger(pipeline, told, "generated", COMMIT)
    assert (again.id, started) == (first.id, False)
    assert len(double.versions) == 2  # the pipeline's first one bears its name
    forced, started = cluster.trigger(pipeline, told, "generated", COMMIT, force=True)
    assert started
    assert forced.id != first.id


@pytest.mark.parametrize("asked", ["get_experiment", "list_runs", "get_pipeline_id", "list_pipeline_versions"])
def test_two_triggers_at_one_moment_leave_one_run(host, double, pipeline, told, monkeypatch, asked):
    """The other trigger comes in between: ours has just been told that there is none of it yet."""
    ours, other = connect(host), connect(host)
    ask, began = getattr(ours._client, asked), []

    def overtaken(*arguments, **named):
        found = None
        try:
            found = ask(*arguments, **named)
        finally:
            if not began:
                began.append(None)
                began.append(other.trigger(pipeline, told, "generated", COMMIT))
        return found

    monkeypatch.setattr(ours._client, asked, overtaken)
    run, started = ours.trigger(pipeline, told, "generated", COMMIT)
    theirs, they_started = began[1]
    assert (run.id, started, they_started) == (theirs.id, False, True)
    assert [item["run_id"] for item in double.runs.values() if item["state"] != "CANCELED"] == [run.id]
    assert (len(double.experiments), len(double.pipelines), len(double.versions)) == (1, 1, 2)


@pytest.mark.parametrize("ended", ["FAILED", "CANCELED"])
def test_a_run_that_failed_is_started_again(host, double, pipeline, told, ended):
    cluster = connect(host)
    first, _ = cluster.trigger(pipeline, told, "generated", COMMIT)
    double.runs[first.id]["state"] = ended
    assert cluster.trigger(pipeline, told, "generated", COMMIT)[1]


@pytest.mark.parametrize("key", ["data_hash", "train_settings"])
def test_other_data_or_settings_make_another_run(pipeline, told, key):
    assert run_name("m", pipeline, told) != run_name("m", pipeline, {**told, key: "other"})


def test_another_image_makes_another_run(told):
    other = {**IMAGES, "cluster.train_image": "registry.example/train@sha256:" + "1" * 64}
    texts = [compile_training(cluster_profile(resolve(overrides=images).config)) for images in (IMAGES, other)]
    assert run_name("m", texts[0], told) != run_name("m", texts[1], told)


@pytest.mark.parametrize(
    ("script", "state", "succeeded"),
    [
        (["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"], "SUCCEEDED", True),
        (["RUNNING", "PAUSED", "SUCCEEDED"], "SUCCEEDED", True),
        (["RUNNING", "FAILED"], "FAILED", False),
        (["RUNNING", "CANCELING", "CANCELED"], "CANCELED", False),  # the client's own wait never returns here
        (["SKIPPED"], "SKIPPED", True),
    ],
)
def test_waiting_ends_however_the_run_ends(host, double, pipeline, told, script, state, succeeded):
    double.script = script
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, told, "generated", COMMIT)
    heard = []
    ended = cluster.wait(run.id, lambda step, now: heard.append((step, now)))
    assert (ended.state, ended.succeeded) == (state, succeeded)
    assert len(heard) == len(set(heard))
    assert not [step for step, _ in heard if step.endswith("driver")]
    assert (ended.error != "") == (state == "FAILED")


def test_watching_outlives_a_server_that_is_busy_or_restarts(double, pipeline, told):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    waits = []
    with serving(double, port) as address:
        cluster = Cluster(settings(address), sleep=waits.append)
        run, _ = cluster.trigger(pipeline, told, "generated", COMMIT)
        double.outages = 2
    again = serving(double, port)

    def restart(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            again.__enter__()

    cluster._sleep = restart
    try:
        assert cluster.wait(run.id).succeeded
    finally:
        again.__exit__(None, None, None)
    assert len(waits) == 7  # three without a server, two while it is busy, two while the run goes on


def test_watching_gives_up_when_the_server_stays_away(host, double, pipeline, told):
    cluster = connect(host, poll_seconds=10, outage_seconds=30)
    run, _ = cluster.trigger(pipeline, told, "generated", COMMIT)
    double.outages = 1000
    with pytest.raises(Unreachable, match="503"):
        cluster.wait(run.id)
    assert [path for _, path in double.calls].count(f"runs/{run.id}") == 4


def test_lists_are_read_to_their_end(host, double, pipeline, told):
    cluster = connect(host)
    for index in range(120):
        cluster.trigger(pipeline, {**told, "data_hash": str(index)}, "generated", COMMIT)
    assert len(cluster.runs(1000)) == 120
    assert len(cluster.runs(7)) == 7
    assert cluster.runs(2)[0].created > cluster.runs(2)[1].created


def test_a_cancelled_run_says_so(host, double, pipeline, told):
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, told, "generated", COMMIT)
    cluster.cancel(run.id)
    assert cluster.get(run.id).state == "CANCELED"


def test_a_schedule_is_replaced_not_doubled(host, double, pipeline, told):
    cluster = connect(host)
    for cron in ("0 0 3 * * *", "0 0 4 * * *"):
        cluster.schedule(pipeline, told, "generated", COMMIT, cron, "nightly")
    assert [(item["name"], item["cron"]) for item in cluster.schedules()] == [("nightly", "0 0 4 * * *")]
    assert cluster.unschedule("nightly") == 1
    assert cluster.schedules() == []
    with pytest.raises(ClusterError, match="cron"):
        cluster.schedule(pipeline, told, "generated", COMMIT, "0 3 * * *", "nightly")


@pytest.mark.parametrize(("token", "said"), [("", "401"), ("wrong", "401"), ("reader", "403"), ("right", "")])
def test_a_token_opens_its_namespaces_and_no_other(host, double, token, said, monkeypatch):
    double.tokens = {"right": {"team"}, "reader": {"elsewhere"}}
    if token:
        monkeypatch.setenv("MYXTTS_KFP_TOKEN", token)
    if not said:
        assert connect(host).runs(1) == []
        return
    with pytest.raises(ClusterError, match=said) as caught:
        connect(host).runs(1)
    assert "\n" not in str(caught.value)
    assert token not in str(caught.value) or not token


def test_a_renewed_token_file_is_read_again(host, double, tmp_path):
    file = tmp_path / "token"
    file.write_text("first\n")
    double.tokens = {"first": {"team"}}
    cluster = connect(host, token_file=str(file))
    assert cluster.runs(1) == []
    double.tokens = {"second": {"team"}}
    with pytest.raises(ClusterError, match="401"):
        cluster.runs(1)
    file.write_text("second\n")
    assert cluster.runs(1) == []


def test_an_unknown_namespace_is_named(host):
    with pytest.raises(ClusterError, match="no access to namespace nowhere"):
        connect(host, namespace="nowhere").runs(1)


def test_no_server_is_said_in_one_line():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ClusterError, match="does not answer") as caught:
        connect(host).runs(1)
    assert "\n" not in str(caught.value)


def test_a_field_that_the_api_lacks_is_refused_by_the_double(double):
    """The double is strict, or these tests would prove nothing."""
    from kfp_double import Refused

    double._allowed = {"team"}
    with pytest.raises(Refused, match="unknown field"):
        double.create_experiment({}, {"display_name": "e", "namespace": "team", "colour": "red"})
    with pytest.raises(Refused, match="unknown field"):
        double.create_run({}, {"display_name": "r", "runtime_config": {"parameter": {}}})


def test_the_servers_certificate_is_checked_against_the_given_authority(double, tmp_path):
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(double, tls=context) as address:
        assert address.startswith("https://")
        assert connect(address, ca_certificate=str(certificate)).runs(1) == []
        with pytest.raises(ClusterError, match=r"(?i)certificate"):
            connect(address).runs(1)


def make_certificate(folder):
    """A certificate for this machine that is its own authority."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "double")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    return folder / "cert.pem", folder / "key.pem"


def test_links_lead_to_the_web_interface(host, double, pipeline, told):
    run, _ = connect(host, ui_host="https://kubeflow.example.com/pipeline/").trigger(pipeline, told, "g", COMMIT)
    assert run.link == f"https://kubeflow.example.com/pipeline/#/runs/details/{run.id}"


def test_logs_of_a_clusters_run_are_those_of_its_pods(tmp_path, monkeypatch):
    from kubernetes.config import kube_config

    kube = KubeDouble()
    kube.logs = ["one", "two"]
    with kube.serving(tmp_path) as kubeconfig:
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        assert list(pod_logs("team", "run-1")) == [("pod-0", "one"), ("pod-0", "two")]
        with pytest.raises(KubeError, match="no pods of run run-1 of step train"):
            list(pod_logs("team", "run-1", "train"))
