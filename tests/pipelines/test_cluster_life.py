"""A session with a cluster from the first run to a schedule, against the double, in both kinds of installation."""

import socket

import argo_names
import pytest
from kfp_double import Double, serving
from kfp_settings import COMMIT, settings

from components.data_versions import LATEST
from components.trainjob import job_name
from pipelines.cluster import Cluster
from pipelines.cluster_client import ClusterError
from pipelines.run_pods import delete_trainjobs, failure_reason, pod_logs, wait_until_stopped

pytestmark = pytest.mark.usefixtures("logged_out")
LATER = "beef" * 10
FAILED = '::step:: {"step": "evaluate", "state": "failed", "error": "no speaker is left to judge"}\n'


class Life:
    """An installation with its pods, and the credentials and records of its user.

    Attributes:
        double: Kubeflow Pipelines.
        kube: Kubernetes, in the namespace in which runs execute.
        port: Port of the API, which a restarted server keeps.
        token: File of the user's token.
        records: Folder with the records of cancelled runs.
    """

    def __init__(self, multi_user: bool, kube, folder) -> None:
        self.double, self.kube = Double(multi_user), kube
        kube.namespace = "team" if multi_user else self.double.pod_namespace
        self.token, self.records = folder / "token", folder / "records"
        self.token.write_text("first")
        self.double.tokens = {"first": {"team"}}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def cluster(self, sleep=lambda seconds: None) -> Cluster:
        """Returns a new client of the user, as in a new process."""
        changes = {"namespace": self.kube.namespace, "token_file": str(self.token)}
        return Cluster(settings(f"http://127.0.0.1:{self.port}", **changes), sleep, self.records)

    def pods(self, run_id: str, phases: dict[str, str], log: str = "") -> None:
        """Adds the pods of a run, given the phase of each step."""
        workflow = self.double.runs[run_id]["_"]["workflow"]
        assert self.double.runs[run_id]["_"]["workflow_namespace"] == self.kube.namespace
        for step, phase in phases.items():
            self.kube.pods.append(argo_names.driver_pod(run_id, workflow, step))
            self.kube.pods.append(argo_names.step_pod(run_id, workflow, step, 0, phase, log))


@pytest.fixture(params=[True, False], ids=["multi-user", "single-user"])
def life(request, kube, tmp_path):
    return Life(request.param, kube, tmp_path)


def test_a_session_from_the_first_run_to_a_schedule(life, pipeline, run_arguments):
    double, kube = life.double, life.kube
    server = serving(double, life.port)
    server.__enter__()
    try:
        # The first run, and what it leaves.
        cluster = life.cluster()
        assert cluster.workflow_namespace == kube.namespace
        first, started = cluster.trigger(pipeline, run_arguments, "generated", COMMIT)
        assert started
        life.pods(first.id, {"train": "Succeeded"}, "trained\n")
        ended = cluster.wait(first.id)
        assert ended.succeeded
        assert list(ended.steps)[-1] == "gate"
        assert list(pod_logs(kube.namespace, first.id, "train")) == [("train", "trained")]

        # The code changes: another version of the same pipeline, another run.
        changed = f"{pipeline}# changed\n"
        second, started = cluster.trigger(changed, run_arguments, "generated", LATER)
        assert started
        assert (len(double.pipelines), len(double.versions), len(double.experiments)) == (1, 3, 1)

        # The same once more, from another process: known already.
        assert life.cluster().trigger(changed, run_arguments, "generated", LATER)[0].id == second.id
        assert cluster.wait(second.id).succeeded

        # A step fails in both of its attempts; its log says why. Tried again, it is another run.
        double.script, double.current, double.attempts = ["RUNNING", "FAILED"], "evaluate", {"evaluate": 2}
        other = {**run_arguments, "data": "1" * 32 + ".dir"}
        failing, _ = cluster.trigger(changed, other, "generated", LATER)
        life.pods(failing.id, {"evaluate": "Failed"}, FAILED)
        ended = cluster.wait(failing.id)
        assert (ended.state, ended.error) == ("FAILED", "step evaluate failed in 2 attempts")
        assert failure_reason(kube.namespace, failing.id, ended.failed_step) == "no speaker is left to judge"
        double.script, double.attempts = ["RUNNING", "SUCCEEDED"], {}
        again, started = cluster.trigger(changed, other, "generated", LATER)
        assert started
        assert cluster.wait(again.id).succeeded

        # Cancelled while it trains on several nodes: the run, its TrainJob and its pods end.
        double.script, double.current = ["RUNNING"], "train"
        training, _ = cluster.trigger(changed, {**run_arguments, "data": "2"}, "generated", LATER)
        cluster.get(training.id)
        life.pods(training.id, {"train": "Running"})
        name = job_name(training.id, "key")
        kube.jobs[name] = {"metadata": {"name": name, "labels": {"pipeline/runid": training.id}}}
        assert not cluster.cancel(training.id).over
        assert delete_trainjobs(kube.namespace, training.id) == [name]

        def pod_ends(seconds):
            kube.pods[-1]["status"]["phase"] = "Failed"

        assert wait_until_stopped(kube.namespace, training.id, [name], pod_ends) == []
        assert life.cluster().wait(training.id).state == "CANCELED"

        # A schedule: replaced, its runs known as equal and left to find the newest data themselves, removed.
        for cron in ("@daily", "0 0 3 * * *"):
            scheduled = cluster.schedule(
                changed, {**run_arguments, "data": LATEST}, "generated", LATER, cron, "nightly"
            )
        assert [item["cron"] for item in cluster.schedules()] == ["0 0 3 * * *"]
        fired = double.fire(scheduled)
        assert double.runs[fired]["runtime_config"]["parameters"]["data"] == LATEST
        assert cluster.trigger(changed, {**run_arguments, "data": LATEST}, "generated", LATER)[0].id == fired
        assert cluster.unschedule("nightly") == 1
        assert cluster.schedules() == []

        # Two people at once.
        both = []

        def meanwhile(run):
            double.before_row = lambda run: None
            both.append(life.cluster().trigger(changed, {**run_arguments, "data": "4"}, "generated", LATER)[0])

        double.before_row = meanwhile
        both.append(cluster.trigger(changed, {**run_arguments, "data": "4"}, "generated", LATER)[0])
        double.script = ["RUNNING", "RUNNING", "SUCCEEDED"]
        assert len({life.cluster().wait(run.id, unique=True).id for run in both}) == 1

        # The server restarts while a run is watched.
        restarted, _ = cluster.trigger(changed, {**run_arguments, "data": "5"}, "generated", LATER)
        server.__exit__(None, None, None)
        waits = []

        def back(seconds):
            nonlocal server
            waits.append(seconds)
            if len(waits) == 2:
                server = serving(double, life.port)
                server.__enter__()

        assert life.cluster(back).wait(restarted.id).succeeded
        assert len(waits) > 2

        # The token expires: in a multi-user installation that is said; a renewed file is read again.
        double.tokens = {"second": {"team"}}
        if double.multi_user:
            with pytest.raises(ClusterError, match="401"):
                cluster.runs(1)
        life.token.write_text("second")
        assert len(cluster.runs(50)) == len(double.runs)
    finally:
        server.__exit__(None, None, None)
