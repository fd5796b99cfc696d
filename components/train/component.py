"""The `train` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def train(features: dsl.Input[dsl.Dataset], settings: str, experiment: str, training: dsl.Output[dsl.Model]):
    """Features to a trained voice, recorded in MLflow."""
    from components.runner import run_step

    run_step("train", training, features=features.path, settings=settings, experiment=experiment)
