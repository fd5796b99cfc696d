"""Admission policies: they allow what the steps do, and refuse what would give them more."""

import copy
from pathlib import Path
from typing import Any

import cel
import kubernetes_validate
import pytest
import yaml

from components.trainjob import render
from model.config.resolution import resolve

ROOT = Path(__file__).parents[2] / "infra" / "kubernetes"
OBJECTS = list(yaml.safe_load_all((ROOT / "admission" / "policies.yaml").read_text("utf-8")))
POLICIES = {item["metadata"]["name"]: item["spec"] for item in OBJECTS if item["kind"] == "ValidatingAdmissionPolicy"}
BINDINGS = [item for item in OBJECTS if item["kind"] == "ValidatingAdmissionPolicyBinding"]
IMAGE = "registry.example.com/myxtts-python-train@sha256:"
RUNNER = "system:serviceaccount:myxtts:myxtts-runner"
KFP = "system:serviceaccount:kubeflow:argo"
CONTROLLERS = ("replicaset-controller", "statefulset-controller")


def refusals(policy: str, obj: dict[str, Any], user: str, old: dict[str, Any] | None = None) -> list[str]:
    """Evaluates a policy as Kubernetes does, and returns the messages of what it refuses."""
    spec = POLICIES[policy]
    values: dict[str, Any] = {
        "object": obj,
        "oldObject": old,
        "params": {"data": {"image": IMAGE}},
        "request": {"userInfo": {"username": user}, "namespace": "myxtts"},
    }
    if not all(cel.evaluate(item["expression"], values) for item in spec.get("matchConditions", [])):
        return []
    variables: dict[str, Any] = {}
    for item in spec.get("variables", []):
        variables[item["name"]] = cel.evaluate(item["expression"], values | {"variables": variables})
    values["variables"] = variables
    return [item["message"] for item in spec["validations"] if not allows(item["expression"], values)]


def allows(expression: str, values: dict[str, Any]) -> bool:
    """Returns whether an expression is true; an error refuses, as `failurePolicy: Fail` says."""
    try:
        return cel.evaluate(expression, values) is True
    except (KeyError, RuntimeError, TypeError, ValueError):
        return False


@pytest.fixture
def trainjob() -> dict[str, Any]:
    """A TrainJob as the training step submits it, with all that the settings can add."""
    cluster = resolve(
        overrides={
            "cluster.accelerators": 1,
            "cluster.node_selector": ["pool=gpu"],
            "cluster.tolerations": ["gpu=yes:NoSchedule"],
            "cluster.image_pull_secret": "registry",
            "cluster.queue": "training",
        }
    ).config
    settings = {"launch": cluster.launch.model_dump(), "cluster": cluster.cluster.model_dump()}
    environment = {"MYXTTS_IMAGE": f"{IMAGE}{'0' * 64}", "MYXTTS_STATE": "/state", "KFP_RUN_ID": "run-1"}
    return render("myxtts-1", ["python", "-m", "components.train.work"], settings, environment)


def pod_of(trainjob: dict[str, Any]) -> dict[str, Any]:
    patch = trainjob["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]
    return patch["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_the_job_of_a_training_is_allowed(trainjob):
    assert refusals("myxtts-trainjobs", trainjob, RUNNER) == []


def secret_variable(name: str) -> dict[str, Any]:
    return {"name": "X", "valueFrom": {"secretKeyRef": {"name": name, "key": "password"}}}


CHANGES = {
    "another image": lambda job: job["spec"]["trainer"].update(image="docker.io/library/postgres:16"),
    "no image": lambda job: job["spec"]["trainer"].pop("image"),
    "the secret of the database": lambda job: job["spec"]["trainer"]["env"].append(secret_variable("myxtts-postgres")),
    "the login of the registry": lambda job: job["spec"]["trainer"]["env"].append(secret_variable("mlflow-registry")),
    "a value from elsewhere": lambda job: job["spec"]["trainer"]["env"].append(
        {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    ),
    "another service account": lambda job: pod_of(job).update(serviceAccountName="mlflow"),
    "no service account": lambda job: pod_of(job).pop("serviceAccountName"),
    "no patch": lambda job: job["spec"].pop("runtimePatches"),
    "a patch without pods": lambda job: job["spec"]["runtimePatches"].append({"manager": "a/b"}),
    "a secret as a volume": lambda job: pod_of(job)["volumes"].append(
        {"name": "s", "secret": {"secretName": "myxtts-postgres"}}
    ),
    "a folder of the node": lambda job: pod_of(job)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    "another volume": lambda job: pod_of(job)["volumes"].append(
        {"name": "d", "persistentVolumeClaim": {"claimName": "data-postgres-0"}}
    ),
    "an init container": lambda job: pod_of(job).update(initContainers=[{"name": "i"}]),
    "a variable in a patch": lambda job: pod_of(job)["containers"][0].update(env=[secret_variable("myxtts-postgres")]),
    "privileges": lambda job: pod_of(job)["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True),
    "an initializer": lambda job: job["spec"].update(initializer={"model": {"env": []}}),
    "older overrides": lambda job: job["spec"].update(podTemplateOverrides=[]),
    "a runtime of the namespace": lambda job: job["spec"]["runtimeRef"].update(kind="TrainingRuntime"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_job_that_asks_for_more_is_refused(trainjob, change):
    change(trainjob)
    assert refusals("myxtts-trainjobs", trainjob, RUNNER)


def pod(**changes: Any) -> dict[str, Any]:
    """A pod of a step."""
    container = {"name": "main", "image": "x", "env": [secret_variable("myxtts-s3"), {"name": "A", "value": "b"}]}
    spec = {
        "serviceAccountName": "myxtts-runner",
        "containers": [container],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
    return {"metadata": {"labels": {"pipeline/runid": "run-1"}}, "spec": spec | changes}


SECRETS = {
    "variable": pod(containers=[{"name": "main", "env": [secret_variable("myxtts-mlflow")]}]),
    "all keys": pod(containers=[{"name": "main", "envFrom": [{"secretRef": {"name": "myxtts-postgres"}}]}]),
    "init container": pod(initContainers=[{"name": "i", "env": [secret_variable("myxtts-postgres")]}]),
    "volume": pod(volumes=[{"name": "s", "secret": {"secretName": "myxtts-mlflow"}}]),
    "projected": pod(volumes=[{"name": "s", "projected": {"sources": [{"secret": {"name": "myxtts-mlflow"}}]}}]),
    "service account of a server": pod(serviceAccountName="postgres"),
}


@pytest.mark.parametrize("bad", SECRETS.values(), ids=SECRETS.keys())
def test_no_pod_of_a_run_gets_a_secret_of_the_servers(bad):
    assert len(refusals("myxtts-secrets", bad, KFP)) == 1
    assert refusals("myxtts-secrets", pod(), KFP) == []


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_the_servers_start(kind, controller):
    for name in ("mlflow.yaml", "databases.yaml"):
        for item in yaml.safe_load_all((ROOT / "base" / name).read_text("utf-8")):
            if item["kind"] == kind:
                user = f"system:serviceaccount:kube-system:{controller}"
                assert refusals("myxtts-secrets", item["spec"]["template"], user) == []


def test_steps_patch_labels_of_their_pods_and_nothing_else():
    old = pod()
    labelled, exchanged = copy.deepcopy(old), copy.deepcopy(old)
    labelled["metadata"]["labels"]["new"] = "label"
    exchanged["spec"]["containers"][0]["image"] = "another"
    assert refusals("myxtts-patches", labelled, RUNNER, old) == []
    assert len(refusals("myxtts-patches", exchanged, RUNNER, old)) == 1
    assert refusals("myxtts-patches", exchanged, "system:node:a", old) == []
    server = {"metadata": {"labels": {"app.kubernetes.io/name": "mlflow"}}, "spec": {"containers": []}}
    assert len(refusals("myxtts-patches", server, RUNNER, server)) == 1
    assert len(refusals("myxtts-patches", {**server, "metadata": {}}, RUNNER, {**server, "metadata": {}})) == 1


def test_every_policy_is_bound_to_the_namespaces_of_the_project_and_denies():
    assert {item["spec"]["policyName"] for item in BINDINGS} == POLICIES.keys()
    for item in BINDINGS:
        assert item["spec"]["validationActions"] == ["Deny"]
        labels = item["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
        assert labels == {"app.kubernetes.io/part-of": "myxtts"}
    assert all(spec["failurePolicy"] == "Fail" for spec in POLICIES.values())
    (trainjobs,) = (item["spec"] for item in BINDINGS if item["spec"]["policyName"] == "myxtts-trainjobs")
    assert trainjobs["paramRef"] == {"name": "myxtts-admission", "parameterNotFoundAction": "Deny"}


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_kubernetes_takes_the_policies(item):
    kubernetes_validate.validate(item, "1.32.0", strict=True)
    assert "namespace" not in item["metadata"]
