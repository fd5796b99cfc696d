"""Compiles the pipeline to YAML, deterministically, and refuses features that one of the targets cannot run."""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from model.addresses import hide_credentials
from model.errors import MyXTTSError
from pipelines.profiles import Profile

FORBIDDEN_KEYS = {
    "cacheKey": "the cluster ignores it, and the local runner would ignore the inputs",
    "workspace": "a step that uses it is never cached",
    "importer": "the local runner cannot import artifacts",
    "createPvc": "the local runner cannot create volumes",
    "artifactIterator": "a choice between artifacts fails in the local runner",
}
SECRET = re.compile(r"(?i)(secret|password|token|credential)(?!.*(name|key_id))")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
# libyaml's parser is ten times as fast; PyYAML's wheels have it, a build from source may not.
YamlLoader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|Users|mnt|work)/")


class LintError(MyXTTSError):
    """A compiled pipeline would not run on every target; the message names the feature and why it is banned."""


def compile_training(profile: Profile, defaults: Mapping[str, str] | None = None) -> str:
    """Compiles the training pipeline for a target and returns the YAML text.

    Args:
        profile: Profile of the target.
        defaults: Values that the parameters of a run have on the page of Kubeflow Pipelines.

    Raises:
        LintError: the pipeline uses a feature that one of the targets cannot run.
    """
    from pipelines.training_pipeline import training_pipeline

    text = _compiled(lambda: training_pipeline(profile, defaults))
    check(text, profile)
    return text


def compile_study(profile: Profile, workers: int, then_train: bool) -> str:
    """Compiles the study pipeline for a target and returns the YAML text; see `study_pipeline`.

    Raises:
        LintError: the pipeline uses a feature that one of the targets cannot run.
    """
    from pipelines.study_pipeline import study_pipeline

    text = _compiled(lambda: study_pipeline(profile, workers, then_train))
    check(text, profile)
    return text


def manifests(profile: Profile, namespace: str, commit: str, defaults: Mapping[str, str] | None = None) -> str:
    """Returns the pipeline and its version as Kubernetes objects, for a cluster managed from a git repository.

    Args:
        profile: Profile of a cluster.
        namespace: Namespace of the objects.
        commit: Git commit that names the version, together with a hash of the pipeline and its image digests.
        defaults: Values that the parameters of a run have on the page of Kubeflow Pipelines.
    """
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    from pipelines.training_pipeline import NAME, training_pipeline

    text = _compiled(lambda: training_pipeline(profile, defaults))
    check(text, profile)
    # The server refuses to change a version, so its name must change with its content, image digests included.
    content = hashlib.sha256(text.encode()).hexdigest()[:8]
    options = KubernetesManifestOptions(
        pipeline_name=NAME,
        pipeline_version_name=f"{NAME}-{commit[:12]}-{content}",
        namespace=namespace,
        include_pipeline_manifest=True,
    )
    return _compiled(
        lambda: training_pipeline(profile, defaults),
        kubernetes_manifest_format=True,
        kubernetes_manifest_options=options,
    )


def _compiled(define: Callable[[], Any], **options: Any) -> str:
    """Compiles the pipeline that `define` returns with KFP, without checks."""
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        # KFP inspects the whole call stack at each setting of a task: a new thread has a short one.
        with ThreadPoolExecutor(1) as thread:
            pipeline = thread.submit(define).result()
            thread.submit(compiler.Compiler().compile, pipeline, str(path), **options).result()
        return path.read_text("utf-8")


def check(text: str, profile: Profile) -> None:
    """Refuses a compiled pipeline that would not run on every target.

    Raises:
        LintError: there are findings; the message lists all of them.
    """
    if found := list(findings(text, profile)):
        raise LintError(
            "the compiled pipeline would not run on every target:\n" + "\n".join(f"  {item}" for item in found)
        )


def findings(text: str, profile: Profile) -> Iterator[str]:
    """Yields every banned feature of a compiled pipeline, as one line of text."""
    pipeline, *platform = yaml.load_all(text, YamlLoader)
    for path, key, value in _walk(pipeline):
        if key in FORBIDDEN_KEYS:
            yield f"{path}: {key} is banned: {FORBIDDEN_KEYS[key]}"
        if key == "artifactSelectors" and len(value) != 1:
            yield f"{path}: {key} is banned: a choice between artifacts fails in the local runner"
    for name, parameter in pipeline["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        if parameter["parameterType"] != "STRING":
            yield f"parameter {name}: only strings reach the steps unchanged on every target"
        if "defaultValue" not in parameter or "description" not in parameter:
            yield f"parameter {name}: without default and description, people cannot start a run on the page"
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        yield from _container(name, executor.get("container", {}), profile)
    if "pip install" in text:
        yield "`pip install`: a step must not install packages when it runs"
    for line in text.splitlines():
        if (shown := hide_credentials(line)) != line:
            yield f"an address with credentials, use a secret: {shown.strip()}"
    if found := MACHINE_PATH.search(text):
        yield f"a path on this machine: {found.group()}"
    if platform and profile.cluster is None:
        yield "pod settings in a pipeline for this machine"


def _container(name: str, container: dict[str, Any], profile: Profile) -> Iterator[str]:
    """Yields the banned features of one step's container."""
    if "kfp.dsl.executor_main" not in str(container):
        yield f"{name}: not a Python component; the local runner cannot run other containers"
    image = container.get("image", "")
    if profile.cluster is not None and not DIGEST.search(image):
        yield f"{name}: image {image} has no digest; the tag could name other code later"
    for variable in container.get("env", []):
        if SECRET.search(variable["name"]):
            yield f"{name}: the value of {variable['name']} is in the compiled pipeline; use a secret"
    if profile.name == "docker" and container.get("env"):
        yield f"{name}: environment variables of a task replace those of the Docker runner"


def _walk(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yields (path of the parent, key, value) of every mapping entry in a YAML document."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield path, key, value
            yield from _walk(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _walk(value, f"{path}[{index}]")
