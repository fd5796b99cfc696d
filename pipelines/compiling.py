"""Pipelines as the YAML that Kubeflow Pipelines takes; the same input gives the same bytes."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from pipelines.linting import check
from pipelines.profiles import Profile


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
