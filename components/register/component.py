"""The `register` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def register(evaluation: dsl.Input[dsl.Artifact], name: str, registration: dsl.Output[dsl.Artifact]):
    """A model version of the evaluated voice."""
    from components.runner import run_step

    run_step("register", registration, evaluation=evaluation.path, name=name)
