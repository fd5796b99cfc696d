"""The `conclude_study` step as a pipeline component."""

from typing import List  # noqa: UP035 - KFP supports no other spelling for a list of artifacts

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def conclude_study(
    prepared: dsl.Input[dsl.Artifact],
    workers: dsl.Input[List[dsl.Artifact]],  # noqa: UP006
    conclusion: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    html: dsl.Output[dsl.HTML],
    train_settings: dsl.OutputPath(str),  # type: ignore[valid-type]
    origin: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> None:
    """Writes the best settings of a study, its table and its plots, and ends its MLflow run."""
    from components.runner import run_step

    run_step(
        "conclude_study",
        conclusion,
        {"metrics": metrics, "html": html},
        {"train_settings": train_settings, "origin": origin},
        prepared=prepared.path,
        workers=[worker.path for worker in workers],
    )
