"""The Kubernetes objects of infra/ build without a network, and Kubernetes 1.32 accepts every field."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from components import mlflow_identities
from components.mlflow_identities import REGISTRY, STEPS
from components.trainjob import IMAGE_USER, S3_VARIABLES, STATE_MOUNT, TRACKING_VARIABLES
from model.config.resolution import resolve
from pipelines.cluster_client import PROJECTED_TOKEN
from pipelines.profiles import STORAGE_KEY, WEBHOOK_KEYS

ROOT = Path(__file__).parents[2] / "infra" / "kubernetes"
OVERLAYS = sorted(path.name for path in (ROOT / "overlays").iterdir())
KUBERNETES = "1.32.0"


@pytest.fixture(scope="module")
def built() -> dict[str, list[dict]]:
    """Overlay -> its objects."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: the overlays cannot be built here")
    return {name: build(name) for name in OVERLAYS}


def build(overlay: str) -> list[dict]:
    command = ["kubectl", "kustomize", str(ROOT / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: list[dict], *kinds: str) -> list[dict]:
    return [item for item in objects if item["kind"] in kinds]


def pods(objects: list[dict]) -> list[dict]:
    return [item["spec"]["template"]["spec"] for item in of_kind(objects, "Deployment", "StatefulSet")]


def containers(objects: list[dict]) -> list[dict]:
    return [item for pod in pods(objects) for item in (*pod.get("initContainers", []), *pod["containers"])]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_object(built, overlay):
    for item in built[overlay]:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_a_misspelt_field_would_be_noticed(built):
    item = json.loads(json.dumps(of_kind(built["production"], "Deployment")[0]))
    item["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_is_used_or_an_example(path):
    users = "".join(item.read_text("utf-8") for item in ROOT.rglob("kustomization.yaml"))
    assert path.name in users or path.name == "kustomization.yaml" or path.name.endswith(".example.yaml")
    assert "http" not in "".join(re.findall(r"(?m)^ *- .*\.yaml$", users))  # nothing is fetched


def test_the_example_of_a_triggering_pod_mounts_a_token_that_the_api_takes():
    (job,) = yaml.safe_load_all((ROOT / "trigger.example.yaml").read_text("utf-8"))
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    pod = job["spec"]["template"]["spec"]
    (mount,) = (item for item in pod["containers"][0]["volumeMounts"] if item["name"] == "kfp-token")
    (volume,) = (item for item in pod["volumes"] if item["name"] == "kfp-token")
    (source,) = volume["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert f"{mount['mountPath']}/{token['path']}" == PROJECTED_TOKEN
    assert token["audience"] == "pipelines.kubeflow.org"
    assert pod["serviceAccountName"] == "myxtts-trigger"


def test_the_job_that_gives_the_state_to_the_user_of_the_steps_fits_volume_and_images():
    (job,) = yaml.safe_load_all((ROOT / "state-owner.example.yaml").read_text("utf-8"))
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["chown", f"{IMAGE_USER}:{IMAGE_USER}", STATE_MOUNT]
    assert container["volumeMounts"] == [{"name": "state", "mountPath": STATE_MOUNT}]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == resolve().config.cluster.state_volume
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}


def test_the_namespace_gets_the_secret_that_argo_mounts_into_every_pod():
    (namespace,) = yaml.safe_load_all((ROOT / "base" / "namespace.yaml").read_text("utf-8"))
    assert namespace["metadata"]["labels"]["pipelines.kubeflow.org/enabled"] == "true"


@pytest.fixture(scope="module")
def secrets() -> dict[str, dict[str, str]]:
    """Secret -> the example of its content."""
    return {
        item["metadata"]["name"]: item["stringData"]
        for item in yaml.safe_load_all((ROOT / "secrets.example.yaml").read_text("utf-8"))
    }


def test_the_examples_of_secrets_have_the_keys_that_pods_read(secrets):
    cluster = resolve().config.cluster
    for name, user, further in (
        (cluster.tracking_secret, STEPS, {}),
        (cluster.registry_secret, REGISTRY, WEBHOOK_KEYS),
    ):
        assert secrets[name].keys() <= {*TRACKING_VARIABLES.values(), *further}
        assert secrets[name]["username"] == user
    assert secrets[cluster.s3_secret].keys() == set(S3_VARIABLES.values())
    assert secrets[cluster.study_secret].keys() == {STORAGE_KEY}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_secret_is_read_by_one_server_or_by_the_steps(built, overlay, secrets):
    """No secret with rights on a database or on the files of MLflow is one that pods of steps get, and the reverse."""
    cluster = resolve().config.cluster
    steps = {cluster.tracking_secret, cluster.registry_secret, cluster.s3_secret, cluster.study_secret}
    readers: dict[str, set[str]] = {}
    for item in of_kind(built[overlay], "Deployment", "StatefulSet"):
        pod = item["spec"]["template"]["spec"]
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    readers.setdefault(reference["name"], set()).add(item["metadata"]["name"])
    launcher = next(item for item in of_kind(built[overlay], "ConfigMap") if item["metadata"]["name"] == "kfp-launcher")
    records = yaml.safe_load(launcher["data"]["providers"])["s3"]["default"]["credentials"]["secretRef"]["secretName"]
    assert (
        readers.pop(cluster.tracking_secret) == readers.pop(cluster.registry_secret) == {"mlflow"}
    )  # it makes the users
    assert readers == {"myxtts-mlflow": {"mlflow"}, "myxtts-postgres": {"postgres"}}
    assert secrets.keys() == readers.keys() | steps | {records}
    role = next(item for item in of_kind(built[overlay], "Role") if item["metadata"]["name"] == "myxtts-runner")
    assert [rule["resourceNames"] for rule in role["rules"] if "secrets" in rule["resources"]] == [[records]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_mlflow_server_asks_for_a_login_and_makes_the_users_first(built, overlay):
    (pod,) = (
        item["spec"]["template"]["spec"]
        for item in of_kind(built[overlay], "Deployment")
        if item["metadata"]["name"] == "mlflow"
    )
    migrate, identities = pod["initContainers"]
    (server,) = pod["containers"]
    assert "--app-name=basic-auth" in server["args"]
    assert identities["command"][:3] == ["python", "-m", mlflow_identities.__name__]
    names = {variable["name"] for variable in identities["env"]}
    assert names == {"BACKEND", "MLFLOW_AUTH_CONFIG_PATH", *mlflow_identities.PASSWORDS.values()}
    paths = [item["value"] for part in (identities, server) for item in part["env"] if "CONFIG_PATH" in item["name"]]
    assert len(paths) == 2
    assert len(set(paths)) == 1
    assert "MLFLOW_FLASK_SERVER_SECRET_KEY" in {variable["name"] for variable in server["env"]}
    assert migrate["command"][:3] == ["mlflow", "db", "upgrade"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_trainjobs_are_compared_with_the_image_of_the_overlay(built, overlay):
    (images,) = (
        item["data"]["image"]
        for item in of_kind(built[overlay], "ConfigMap")
        if item["metadata"]["name"] == "myxtts-admission"
    )
    assert "/myxtts-python-train" in images
    assert overlay == "development" or images.endswith("@sha256:")
    (namespace,) = of_kind(built[overlay], "Namespace")
    assert namespace["metadata"]["labels"]["app.kubernetes.io/part-of"] == "myxtts"  # which the policies select


def test_the_trigger_may_do_what_cancelling_does(built):
    role = next(item for item in of_kind(built["production"], "Role") if item["metadata"]["name"] == "myxtts-trigger")
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {("runs", "terminate"), ("trainjobs", "list"), ("trainjobs", "delete"), ("pods", "list")} <= granted


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_shipped(built, overlay):
    assert not of_kind(built[overlay], "Secret")
    for container in containers(built[overlay]):
        for variable in container.get("env", []):
            if re.search("PASSWORD|SECRET|KEY|BACKEND", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]
    example = list(yaml.safe_load_all((ROOT / "secrets.example.yaml").read_text("utf-8")))
    wanted = {
        (reference["name"], reference["key"])
        for container in containers(built[overlay])
        for variable in container.get("env", [])
        if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))
    }
    offered = {(item["metadata"]["name"], key) for item in example for key in item["stringData"]}
    assert wanted <= offered
    shown = {key: value for item in example for key, value in item["stringData"].items() if key != "username"}
    assert all("<" in value for value in shown.values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_an_ordinary_user_with_limits(built, overlay):
    for pod in pods(built[overlay]):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
    for container in containers(built[overlay]):
        assert container["resources"]["limits"]["memory"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_production_runs_images_by_digest_and_survives_a_drained_node(built):
    ours = [item["image"] for item in containers(built["production"]) if "myxtts" in item["image"]]
    assert ours
    assert all("@sha256:" in image for image in ours)
    assert of_kind(built["production"], "PodDisruptionBudget")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_the_pipeline_names_is_there(built, overlay):
    """The defaults of the cluster's settings and the objects fit each other."""
    objects, settings = built[overlay], resolve().config.cluster
    names = {(item["kind"], item["metadata"]["name"]) for item in objects}
    assert ("ServiceAccount", settings.service_account) in names
    assert ("PersistentVolumeClaim", settings.state_volume) in names
    assert ("Namespace", settings.namespace) in names
    service = next(item for item in of_kind(objects, "Service") if item["metadata"]["name"] == "mlflow")
    port = service["spec"]["ports"][0]["port"]
    assert settings.tracking_uri == f"http://{service['metadata']['name']}:{port}"
    arguments = next(item for item in containers(objects) if item["name"] == "mlflow")["args"]
    allowed = next(item for item in arguments if item.startswith("--allowed-hosts="))
    assert settings.tracking_uri.removeprefix("http://") in allowed.partition("=")[2].split(",")
    assert {item["metadata"]["namespace"] for item in objects if item["kind"] != "Namespace"} == {settings.namespace}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_steps_connect_only_to_what_they_need(built, overlay):
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind(built[overlay], "NetworkPolicy")}
    steps = policies["steps"]
    assert steps["podSelector"]["matchExpressions"] == [{"key": "pipeline/runid", "operator": "Exists"}]
    assert steps["policyTypes"] == ["Egress"]
    inside, outside = steps["egress"]
    settings = resolve().config.cluster
    namespaces = [to["namespaceSelector"]["matchLabels"] for to in inside["to"] if "namespaceSelector" in to]
    assert namespaces == [{"kubernetes.io/metadata.name": settings.kfp_namespace}]
    assert {"podSelector": {}} in inside["to"]  # MLflow, and the other workers of a TrainJob
    assert {port["port"] for port in outside["ports"]} == {53, 443, 6443}


def test_mlflow_and_optuna_have_a_role_and_a_database_each(secrets):
    for service, (name, key) in {
        "mlflow": ("myxtts-mlflow", "backend-uri"),
        "optuna": ("myxtts-studies", "optuna-uri"),
    }.items():
        address = urlsplit(secrets[name][key])
        assert (address.username, address.path) == (service, f"/{service}")
        assert address.scheme == "postgresql+pg8000"  # without a driver it would mean another one
        assert address.password == f"<{service} password>" == secrets["myxtts-postgres"][f"{service}-password"]


def test_the_runner_may_do_what_the_launcher_of_several_nodes_does(built):
    role = next(item for item in of_kind(built["production"], "Role") if item["metadata"]["name"] == "myxtts-runner")
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    for verb in ("create", "get", "patch", "delete"):
        assert ("trainer.kubeflow.org", "trainjobs", verb) in granted
    assert {("", "pods", "list"), ("", "pods/log", "get")} <= granted
    assert not any("*" in item for item in granted)
