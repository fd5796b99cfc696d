"""Starting and watching runs: the real client of Kubeflow Pipelines against a strict double of its API."""

import re
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from kfp_double import UploadRefused, serving
from kfp_settings import COMMIT, IMAGES, connect, settings

from model.config.resolution import resolve
from pipelines.cluster import Cluster, run_name
from pipelines.cluster_client import ClusterError, Unreachable
from pipelines.compiling import compile_training
from pipelines.cron import CronError
from pipelines.profiles import cluster_profile

pytestmark = pytest.mark.usefixtures("logged_out")


def test_a_run_is_started_from_the_version_of_its_commit(host, double, pipeline, run_arguments):
    run, started = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    assert started
    sent = double.runs[run.id]
    version = double.versions[sent["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"].startswith(COMMIT[:12])
    assert double.specs[version["pipeline_version_id"]] == pipeline
    assert sent["runtime_config"]["parameters"] == run_arguments
    assert sent["service_account"] == "myxtts-runner"
    assert run.link == f"{host}/#/runs/details/{run.id}"


def test_an_equal_run_is_not_started_twice(host, double, pipeline, run_arguments):
    cluster = connect(host)
    first, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    again, started = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    assert (again.id, started) == (first.id, False)
    assert len(double.versions) == 2  # the pipeline's first one bears its name
    forced, started = cluster.trigger(pipeline, run_arguments, "generated", COMMIT, force=True)
    assert started
    assert forced.id != first.id


@pytest.mark.parametrize("asked", ["list_experiments", "list_runs", "list_pipelines", "list_pipeline_versions"])
def test_two_triggers_at_one_moment_leave_one_run(host, double, pipeline, run_arguments, monkeypatch, asked):
    """The other client starts its run after this one has found no equal run."""
    ours, other = connect(host), connect(host)
    ask, began = getattr(ours._client, asked), []

    def overtaken(*arguments, **named):
        found = None
        try:
            found = ask(*arguments, **named)
        finally:
            if not began:
                began.append(None)
                began.append(other.trigger(pipeline, run_arguments, "generated", COMMIT))
        return found

    monkeypatch.setattr(ours._client, asked, overtaken)
    run, started = ours.trigger(pipeline, run_arguments, "generated", COMMIT)
    theirs, they_started = began[1]
    assert (run.id, started, they_started) == (theirs.id, False, True)
    assert [item["run_id"] for item in double.runs.values() if item["state"] != "CANCELING"] == [run.id]
    assert (len(double.experiments), len(double.pipelines), len(double.versions)) == (1, 1, 2)


def test_a_run_that_is_listed_long_after_it_was_created_stays_the_only_one(host, double, pipeline, run_arguments):
    """A run is listed once its workflow exists, so the run that was created first may be listed last.

    It is found after `linger`, by the client that watches, which then watches the first run.
    """
    ours, other = connect(host), connect(host)
    second = []

    def overtaken(run):
        double.before_row = lambda run: None
        second.append(other.trigger(pipeline, run_arguments, "generated", COMMIT))

    double.before_row = overtaken
    run, started = ours.trigger(pipeline, run_arguments, "generated", COMMIT)
    other_run, other_started = second[0]
    assert started
    assert other_started  # it could not see ours
    assert other.wait(other_run.id, unique=True).id == run.id
    assert double.runs[other_run.id]["state"] == "CANCELING"
    assert ours.wait(run.id, unique=True).id == run.id


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_run_that_failed_or_was_cancelled_is_started_again(host, double, pipeline, run_arguments, end):
    cluster = connect(host)
    first, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    if end == "cancel":
        cluster.cancel(first.id)
    else:
        double.script = ["FAILED"]
    cluster.wait(first.id)
    double.script = ["SUCCEEDED"]
    assert cluster.trigger(pipeline, run_arguments, "generated", COMMIT)[1]


@pytest.mark.parametrize("key", ["data", "settings", "max_steps"])
def test_other_data_or_settings_make_another_run(pipeline, run_arguments, key):
    assert run_name("m", pipeline, run_arguments) != run_name("m", pipeline, {**run_arguments, key: "other"})


def test_another_image_makes_another_run(run_arguments):
    other = {**IMAGES, "cluster.train_image": "registry.example/train@sha256:" + "1" * 64}
    texts = [compile_training(cluster_profile(resolve(overrides=images).config)) for images in (IMAGES, other)]
    assert run_name("m", texts[0], run_arguments) != run_name("m", texts[1], run_arguments)


@pytest.mark.parametrize(
    ("script", "state", "succeeded"),
    [
        (["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"], "SUCCEEDED", True),
        (["RUNNING", "PAUSED", "SUCCEEDED"], "SUCCEEDED", True),
        (["RUNNING", "FAILED"], "FAILED", False),
        (["SKIPPED"], "SKIPPED", True),
    ],
)
def test_waiting_ends_however_the_run_ends(host, double, pipeline, run_arguments, script, state, succeeded):
    double.script = script
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    changes = []
    ended = cluster.wait(run.id, lambda step, now: changes.append((step, now)))
    assert (ended.state, ended.succeeded) == (state, succeeded)
    assert len(changes) == len(set(changes))
    assert not [step for step, _ in changes if step.endswith("driver")]
    assert ended.error == ("step train failed" if state == "FAILED" else "")


def test_a_cancelled_run_ends_waiting_as_cancelled(host, double, pipeline, run_arguments):
    """The server reports CANCELING, then FAILED, but never CANCELED."""
    double.script = ["RUNNING"]
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    cluster.cancel(run.id)
    ended = connect(host).wait(run.id)
    assert (ended.state, ended.over, ended.succeeded, ended.error) == ("CANCELED", True, False, "")
    assert double.runs[run.id]["state"] == "FAILED"


def test_a_cancellation_that_the_servers_history_missed_is_known_from_our_record(
    host, double, pipeline, run_arguments, tmp_path
):
    double.script, double.reports_canceling = ["RUNNING"], False
    cluster = connect(host, records=tmp_path)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    cluster.cancel(run.id)
    assert cluster.wait(run.id).state == "CANCELED"
    assert connect(host).get(run.id).state == "FAILED"  # elsewhere nobody can know


def test_a_run_that_failed_on_its_own_is_not_called_cancelled(host, double, pipeline, run_arguments, tmp_path):
    double.script = ["RUNNING", "FAILED"]
    cluster = connect(host, records=tmp_path)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    assert cluster.wait(run.id).state == "FAILED"
    assert cluster.cancel(run.id).over  # too late, and said so
    assert cluster.get(run.id).state == "FAILED"


def test_a_run_that_is_cancelled_twice_or_is_over_is_no_error(host, double, pipeline, run_arguments):
    """The server answers 400, "Row not found", to both."""
    double.script = ["RUNNING"]
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    assert not cluster.cancel(run.id).over
    assert cluster.cancel(run.id).state == "CANCELING"
    cluster.wait(run.id)
    assert cluster.cancel(run.id).state == "CANCELED"
    assert double.runs[run.id]["state"] == "FAILED"


def test_steps_are_shown_by_their_own_names_with_their_attempts(host, double, pipeline, run_arguments):
    """The server lists Argo's nodes: the workflow, root, drivers, attempts, and an `executor` per step."""
    double.script, double.attempts = ["RUNNING", "FAILED"], {"train": 3}
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    said = []
    ended = cluster.wait(run.id, lambda step, state: said.append((step, state)))
    assert list(ended.steps) == ["configure", "resolve_data", "preprocess", "train"]
    assert ended.attempts == {"configure": 1, "resolve_data": 1, "preprocess": 1, "train": 3}
    assert ended.error == "step train failed in 3 attempts"
    assert said[-2:] == [("train", "RUNNING (attempt 3)"), ("train", "FAILED (attempt 3)")]


def test_the_second_run_with_changed_code_uploads_a_version_beside_the_first(host, double, pipeline, run_arguments):
    """Without a namespace, the server lists only shared pipelines."""
    cluster = connect(host)
    cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    run, started = cluster.trigger(pipeline + "# changed\n", run_arguments, "generated", "beef" * 10)
    assert started
    (of,) = double.pipelines.values()
    assert of["namespace"] == "team"
    assert {item["name"][:4] for item in double.versions.values()} == {"myxt", "c0ff", "beef"}
    version = double.runs[run.id]["pipeline_version_reference"]["pipeline_version_id"]
    assert double.specs[version].endswith("# changed\n")


def test_teams_of_one_server_have_a_pipeline_and_an_experiment_each(host, double, pipeline, run_arguments):
    double.namespaces = {"team", "other"}
    for namespace in ("team", "other"):
        assert connect(host, namespace=namespace).trigger(pipeline, run_arguments, "generated", COMMIT)[1]
    for found in (double.pipelines, double.experiments):
        assert {item["namespace"] for item in found.values()} == {"team", "other"}


def test_a_version_that_is_deleted_at_that_moment_is_uploaded_again(host, double, pipeline, run_arguments, monkeypatch):
    """The server answers a run of a deleted version with 500 instead of 404."""
    cluster = connect(host)
    cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    start = cluster._client.run_pipeline

    def deleted(*arguments, **named):
        monkeypatch.setattr(cluster._client, "run_pipeline", start)
        del double.versions[named["version_id"]], double.specs[named["version_id"]]
        return start(*arguments, **named)

    monkeypatch.setattr(cluster._client, "run_pipeline", deleted)
    assert cluster.trigger(pipeline, {**run_arguments, "data": "other"}, "generated", COMMIT)[1]


@pytest.mark.parametrize("name", ["speech+noise", "50%25 speech", "a&b=c", "فارسی"])
def test_names_with_characters_of_urls_are_found_again(host, double, pipeline, run_arguments, name):
    """The server unescapes filters once more than HTTP requires."""
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, {**run_arguments, "name": name}, name, COMMIT)
    again, started = cluster.trigger(pipeline, {**run_arguments, "name": name}, name, COMMIT)
    assert (again.id, started) == (run.id, False)
    assert [item["display_name"] for item in double.experiments.values()] == [name]


@pytest.mark.parametrize("reading", [True, False])
def test_an_internal_error_is_worth_another_try_only_while_reading(host, double, pipeline, run_arguments, reading):
    cluster = connect(host)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    double.internal_errors = 1
    with pytest.raises(ClusterError, match=r"500.*connection refused") as caught:
        cluster.get(run.id) if reading else cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    assert isinstance(caught.value, Unreachable) == reading


@pytest.mark.parametrize("exists", [True, False])
def test_a_refused_upload_says_what_is_probably_wrong(host, double, pipeline, run_arguments, monkeypatch, exists):
    """Without permission to upload, the upload handlers answer 400 with other field names and no reason."""
    if exists:
        connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    refuse = lambda *_: (_ for _ in ()).throw(UploadRefused(400, "Failed to create a pipeline"))  # noqa: E731
    monkeypatch.setattr(double, "_may_upload", refuse)
    with pytest.raises(ClusterError, match=r"400: Failed to create a pipeline; .*create pipelines in namespace team"):
        connect(host).trigger(pipeline + "# changed\n", run_arguments, "generated", COMMIT)


def test_the_reason_of_an_upload_handler_is_shown_and_not_called_an_outage(host, double, run_arguments, monkeypatch):
    monkeypatch.setattr("pipelines.cluster._pipeline_name", lambda pipeline: "none")
    with pytest.raises(ClusterError, match="400: invalid v2 pipeline spec") as caught:
        connect(host).trigger("no: pipeline\n", run_arguments, "generated", COMMIT)
    assert not isinstance(caught.value, Unreachable)


def test_a_plain_text_error_is_shown(host, double, pipeline, run_arguments, monkeypatch):
    monkeypatch.setattr("pipelines.cluster._pipeline_name", lambda pipeline: "n" * 129)
    with pytest.raises(ClusterError, match=r"400: Pipeline\.Name length cannot exceed 128"):
        connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)


def test_another_teams_run_is_neither_shown_nor_ended(host, double, pipeline, run_arguments, monkeypatch):
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    double.tokens, double.namespaces = {"theirs": {"elsewhere"}}, {"team", "elsewhere"}
    monkeypatch.setenv("MYXTTS_KFP_TOKEN", "theirs")
    stranger = connect(host, namespace="elsewhere")
    for act in (stranger.get, stranger.cancel):
        with pytest.raises(ClusterError, match="403"):
            act(run.id)
    assert double.runs[run.id]["state"] == "PENDING"
    assert stranger.runs(5) == []


def test_watching_outlives_a_server_that_is_busy_or_restarts(double, pipeline, run_arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    waits = []
    with serving(double, port) as address:
        cluster = Cluster(settings(address), sleep=waits.append)
        run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
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


def test_watching_gives_up_when_the_server_stays_away(host, double, pipeline, run_arguments):
    cluster = connect(host, poll_seconds=10, outage_seconds=30)
    run, _ = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
    double.outages = 1000
    with pytest.raises(Unreachable, match="503"):
        cluster.wait(run.id)
    assert [path for _, path in double.calls].count(f"runs/{run.id}") == 4


def test_lists_are_read_to_their_end(host, double, pipeline, run_arguments, monkeypatch):
    monkeypatch.setattr("pipelines.cluster.PAGE", 5)
    cluster = connect(host)
    for index in range(12):
        cluster.trigger(pipeline, {**run_arguments, "data": str(index)}, "generated", COMMIT)
    assert len(cluster.runs(1000)) == 12
    assert len(cluster.runs(7)) == 7
    assert cluster.runs(2)[0].created > cluster.runs(2)[1].created


def test_a_schedule_is_replaced_not_doubled(host, double, pipeline, run_arguments):
    cluster = connect(host)
    for cron in ("0 0 3 * * *", "0 0 4 * * *"):
        cluster.schedule(pipeline, run_arguments, "generated", COMMIT, cron, "nightly")
    assert [(item["name"], item["cron"]) for item in cluster.schedules()] == [("nightly", "0 0 4 * * *")]
    assert cluster.unschedule("nightly") == 1
    assert cluster.schedules() == []
    for cron, fix in (("0 3 * * *", "did you mean '0 0 3 "), ("0 0 25 * * *", "hour '25' is not within 0 to 23")):
        with pytest.raises(CronError, match=re.escape(fix)):
            cluster.schedule(pipeline, run_arguments, "generated", COMMIT, cron, "nightly")
    assert not double.recurring
    assert cluster.schedule(pipeline, run_arguments, "generated", COMMIT, "@daily", "nightly")


def test_a_run_that_a_schedule_started_is_known_as_equal(host, double, pipeline, run_arguments):
    """Its name is that of its workflow, so only its version and arguments identify it."""
    cluster = connect(host)
    scheduled = cluster.schedule(pipeline, run_arguments, "generated", COMMIT, "@daily", "nightly")
    run_id = double.fire(scheduled)
    found, started = cluster.trigger(pipeline, run_arguments, "generated", "beef" * 10)
    assert (found.id, found.schedule, started) == (run_id, scheduled, False)
    assert cluster.trigger(pipeline, {**run_arguments, "data": "other"}, "generated", COMMIT)[1]
    assert cluster.trigger(pipeline + "# changed\n", run_arguments, "generated", COMMIT)[1]


def test_a_schedule_without_a_status_is_listed(host, double, pipeline, run_arguments):
    cluster = connect(host)
    scheduled = cluster.schedule(pipeline, run_arguments, "generated", COMMIT, "@daily", "nightly")
    del double.recurring[scheduled]["status"]
    assert [item["status"] for item in cluster.schedules()] == ["not reported yet"]


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


def test_a_server_that_does_not_answer_is_one_line():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ClusterError, match="does not answer") as caught:
        connect(host).runs(1)
    assert "\n" not in str(caught.value)


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
    """Makes a self-signed certificate for this machine."""
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


def test_links_lead_to_the_web_interface(host, double, pipeline, run_arguments):
    run, _ = connect(host, ui_host="https://kubeflow.example.com/pipeline/").trigger(
        pipeline, run_arguments, "g", COMMIT
    )
    assert run.link == f"https://kubeflow.example.com/pipeline/#/runs/details/{run.id}"
