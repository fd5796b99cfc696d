"""Triggering and watching runs: the real client of Kubeflow Pipelines against a strict double of its API."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kfp_double import Double, serving
from kube_double import KubeDouble

from components import dvc
from components.kube import KubeError
from model.config import ConfigError, resolve
from pipelines.cli.pipeline import pipeline as pipeline_group
from pipelines.cluster import Cluster, run_name
from pipelines.cluster_client import ClusterError, Unreachable
from pipelines.compiling import compile_training
from pipelines.pod_logs import pod_logs
from pipelines.profiles import cluster_profile
from pipelines.project import ProjectError
from pipelines.training import arguments

COMMIT = "c0ffee" * 7
IMAGES = {f"cluster.{kind}_image": f"registry.example/{kind}@sha256:" + "0" * 64 for kind in ("data", "train")}


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("MYXTTS_KFP_TOKEN", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def pipeline() -> str:
    return compile_training(cluster_profile(resolve(overrides=IMAGES).config))


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    return arguments(resolve().config, "0" * 32 + ".dir", "s3://data/dvc", "myxtts-generated-tiny")


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def host(double):
    with serving(double) as address:
        yield address


def settings(host: str, **changes):
    overrides = {"cluster.host": host, "cluster.namespace": "team", "cluster.outage_seconds": 60, **IMAGES}
    return resolve(
        overrides={**overrides, **{f"cluster.{key}": value for key, value in changes.items()}}
    ).config.cluster


def connect(host: str, **changes) -> Cluster:
    return Cluster(settings(host, **changes), sleep=lambda seconds: None)


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


def program(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipelines.cli.main", "pipeline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


@pytest.mark.parametrize(
    ("script", "token", "status", "said"),
    [(["SUCCEEDED"], "right", 0, "SUCCEEDED"), (["FAILED"], "right", 1, "step train failed"), ([], "wrong", 2, "401")],
)
def test_the_programs_exit_status_tells_how_it_went(host, double, pipeline, told, script, token, status, said):
    double.tokens = {"right": {"team"}}
    run, _ = start_as(double, host, pipeline, told)
    double.script = script
    done = program(
        "status", run.id, "--target", "cluster", "--host", host, "--namespace", "team", MYXTTS_KFP_TOKEN=token
    )
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert token not in done.stdout + done.stderr


def start_as(double, host, pipeline, told):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYXTTS_KFP_TOKEN", "right")
        return connect(host).trigger(pipeline, told, "generated", COMMIT)


def test_runs_are_listed_as_data(host, double, pipeline, told):
    run, _ = connect(host).trigger(pipeline, told, "generated", COMMIT)
    done = program("list", "--target", "cluster", "--host", host, "--namespace", "team", "--json")
    assert [item["id"] for item in json.loads(done.stdout)] == [run.id]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A project whose data stages have run, on a remote that pods reach."""
    folder = tmp_path / "checkout"
    (folder / ".dvc").mkdir(parents=True)
    root = Path(__file__).parents[2]
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(root / name, folder / name)
    outs = [{"path": "data/corpus", "md5": "0" * 32 + ".dir"}]
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": {"split": {"outs": outs}}}))
    settings = {"core": {"remote": "storage"}, "'remote \"storage\"'": {"url": "s3://data/dvc"}}
    dvc.write_config(folder, settings, "config")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MYXTTS_STATE", raising=False)
    return folder


def run_on_cluster(host: str, *more: str):
    options = [part for key, value in IMAGES.items() for part in ("--set", f"{key}={value}")]
    where = ["--target", "cluster", "--host", host, "--namespace", "team", "--set", "cluster.poll_seconds=0.01"]
    return CliRunner().invoke(pipeline_group, ["run", *where, *options, *more])


def cloud(monkeypatch, answer: str) -> None:
    """What `dvc status --cloud` says."""
    real = dvc.run
    monkeypatch.setattr(dvc, "run", lambda *told, **kept: answer if "--cloud" in told else real(*told, **kept))


@pytest.mark.parametrize(
    ("script", "more", "status"),
    [
        (["RUNNING", "SUCCEEDED"], [], 0),
        (["RUNNING", "FAILED"], [], 1),
        (["CANCELED"], [], 1),
        (["RUNNING"], ["--no-wait"], 0),
    ],
)
def test_run_triggers_waits_and_answers_with_its_exit_status(checkout, host, double, monkeypatch, script, more, status):
    cloud(monkeypatch, "{}")
    double.script = script
    done = run_on_cluster(host, "--json", *more)
    assert done.exit_code == status, done.output
    (run,) = double.runs.values()
    assert run["runtime_config"]["parameters"]["data_hash"] == "0" * 32 + ".dir"
    assert run["display_name"].startswith("myxtts-generated-tiny-")
    assert f"{host}/#/runs/details/{run['run_id']}" in done.output


def test_data_that_was_not_pushed_starts_nothing(checkout, host, double, monkeypatch):
    cloud(monkeypatch, json.dumps({"data/corpus": "new"}))
    done = run_on_cluster(host)
    assert isinstance(done.exception, ProjectError)  # the program's exit status 2
    assert "`dvc push`" in str(done.exception)
    assert not double.runs


def test_a_remote_that_is_a_folder_starts_nothing(checkout, host, double):
    dvc.write_config(
        checkout, {"core": {"remote": "storage"}, "'remote \"storage\"'": {"url": str(checkout / "remote")}}, "config"
    )
    done = run_on_cluster(host)
    assert isinstance(done.exception, ProjectError)
    assert "dvc remote modify" in str(done.exception)
    assert not double.runs


def test_a_missing_image_starts_nothing(checkout, host, double):
    done = run_on_cluster(host, "--set", "cluster.train_image=''")
    assert isinstance(done.exception, ConfigError)
    assert "cluster.train_image is not set" in str(done.exception)
    assert not double.calls


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


def invoke(host: str, command: str, *more: str):
    images = [part for key, value in IMAGES.items() for part in ("--set", f"{key}={value}")]
    where = ["--target", "cluster", "--host", host, "--namespace", "team"]
    return CliRunner().invoke(pipeline_group, [command, *more, *where, *images], catch_exceptions=False)


def test_schedules_are_made_listed_and_removed_by_name(checkout, host, double, monkeypatch):
    cloud(monkeypatch, "{}")
    assert invoke(host, "schedule", "--cron", "0 0 3 * * *").exit_code == 0
    (made,) = json.loads(invoke(host, "schedule", "--json").output)
    assert (made["name"], made["cron"]) == ("myxtts-generated-tiny", "0 0 3 * * *")
    assert invoke(host, "schedule", "--remove").exit_code == 0
    assert not double.recurring
    assert invoke(host, "schedule", "--remove").exit_code == 2


def test_a_run_is_cancelled_by_its_id(checkout, host, double, pipeline, told):
    run, _ = connect(host).trigger(pipeline, told, "generated", COMMIT)
    assert invoke(host, "cancel", run.id).exit_code == 0
    assert double.runs[run.id]["state"] == "CANCELED"
    assert invoke(host, "cancel").exit_code == 2  # nobody's run is ended by leaving out its name


def test_objects_for_a_gitops_repository_are_written(checkout, host, tmp_path):
    output = tmp_path / "objects.yaml"
    assert invoke(host, "compile", "--format", "kubernetes", "--output", str(output)).exit_code == 0
    kinds = [item["kind"] for item in yaml.safe_load_all(output.read_text())]
    assert kinds == ["Pipeline", "PipelineVersion"]
