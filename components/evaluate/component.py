"""The `evaluate` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def evaluate(finetuning: dsl.Input[dsl.Model], settings: str, evaluation: dsl.Output[dsl.Artifact]):
    """Measures of the voice on held-out and training sentences."""
    from components.runner import run_step

    run_step("evaluate", evaluation, finetuning=finetuning.path, settings=settings)
