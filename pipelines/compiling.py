"""Pipelines as the YAML that Kubeflow Pipelines takes; the same input gives the same bytes."""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from model.errors import MyXTTSError
from pipelines.profiles import Profile

FORBIDDEN_KEYS = {
    "cacheKey": "the cluster ignores it, and the local runner then ignores the inputs",
    "workspace": "a step that touches it is never served from the cache",
    "importer": "the local runner downloads nothing",
    "createPvc": "the local runner cannot make volumes",
    "artifactIterator": "a choice between artifacts fails in the local runner",
}
SECRET = re.compile(r"(?i)(secret|password|token|credential)(?!.*(name|key_id))")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|Users|mnt|work)/")


class LintError(MyXTTSError):
    """A compiled pipeline would not run everywhere; the message names the feature and why it is banned."""


def compile_training(profile: Profile) -> str:
    """The training pipeline for a target as YAML text.

    Raises:
        LintError: it has a feature that the target, or the other targets, cannot run.
    """
    text = _compiled(profile)
    check(text, profile)
    return text


def manifests(profile: Profile, namespace: str, commit: str) -> str:
    """The pipeline and its version as Kubernetes objects, for a cluster that is driven from a git repository.

    Args:
        profile: A cluster's profile.
        namespace: Where the objects go.
        commit: Git commit that names the version, together with a hash of the pipeline and its image digests.
    """
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    from pipelines.training_pipeline import NAME

    text = _compiled(profile)
    check(text, profile)
    # The server refuses to change a version, so its name must change with all that it holds, such as image digests.
    content = hashlib.sha256(text.encode()).hexdigest()[:8]
    options = KubernetesManifestOptions(
        pipeline_name=NAME,
        pipeline_version_name=f"{NAME}-{commit[:12]}-{content}",
        namespace=namespace,
        include_pipeline_manifest=True,
    )
    return _compiled(profile, kubernetes_manifest_format=True, kubernetes_manifest_options=options)


def _compiled(profile: Profile, **options: Any) -> str:
    from kfp import compiler

    from pipelines.training_pipeline import training_pipeline

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(training_pipeline(profile), str(path), **options)
        return path.read_text("utf-8")


def check(text: str, profile: Profile) -> None:
    """Refuse a compiled pipeline that breaks on either side.

    Raises:
        LintError: with every finding.
    """
    if found := list(findings(text, profile)):
        raise LintError("the compiled pipeline cannot be run everywhere:\n" + "\n".join(f"  {item}" for item in found))


def findings(text: str, profile: Profile) -> Iterator[str]:
    """Everything in a compiled pipeline that is banned, one line each."""
    pipeline, *platform = yaml.safe_load_all(text)
    for path, key, value in _walk(pipeline):
        if key in FORBIDDEN_KEYS:
            yield f"{path}: {key} is banned: {FORBIDDEN_KEYS[key]}"
        if key == "artifactSelectors" and len(value) != 1:
            yield f"{path}: {key} is banned: a choice between artifacts fails in the local runner"
    for name, parameter in pipeline["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        if parameter != {"parameterType": "STRING"}:
            yield f"parameter {name}: only required strings arrive unchanged on every target"
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        yield from _container(name, executor.get("container", {}), profile)
    if "pip install" in text:
        yield "`pip install`: nothing is installed when a step runs"
    if found := MACHINE_PATH.search(text):
        yield f"a path of this machine: {found.group()}"
    if platform and profile.cluster is None:
        yield "settings of pods in a pipeline for this machine"


def _container(name: str, container: dict[str, Any], profile: Profile) -> Iterator[str]:
    if "kfp.dsl.executor_main" not in str(container):
        yield f"{name}: not a Python component; the local runner cannot run other containers"
    image = container.get("image", "")
    if profile.cluster is not None and not DIGEST.search(image):
        yield f"{name}: image {image} is no digest; the same pipeline would run other code tomorrow"
    for variable in container.get("env", []):
        if SECRET.search(variable["name"]):
            yield f"{name}: the value of {variable['name']} is compiled in; take it from a secret"
    if profile.name == "docker" and container.get("env"):
        yield f"{name}: variables of a task replace all of the Docker runner's own"


def _walk(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield path, key, value
            yield from _walk(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _walk(value, f"{path}[{index}]")
