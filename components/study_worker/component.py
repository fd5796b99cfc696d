"""The `study_worker` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def study_worker(
    data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    prepared: dsl.Input[dsl.Artifact],
    worker: str,
    finished: dsl.Output[dsl.Artifact],
) -> None:
    """Trains trials of a study until none is left; several workers do so in parallel."""
    from components.runner import run_step

    run_step("study_worker", finished, data=data.path, features=features.path, prepared=prepared.path, worker=worker)
