"""Pipelines as the YAML that Kubeflow Pipelines takes; the same input gives the same bytes."""

import tempfile
from pathlib import Path

from pipelines.profiles import Profile


def compile_training(profile: Profile) -> str:
    """The training pipeline for a target as YAML text."""
    from kfp import compiler

    from pipelines.training import training_pipeline

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(training_pipeline(profile), str(path))
        return path.read_text("utf-8")
