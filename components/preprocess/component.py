"""The `preprocess` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def preprocess(data: dsl.Input[dsl.Dataset], settings: str, features: dsl.Output[dsl.Dataset]):
    """Corpus to features."""
    from components.step import run_step

    run_step("preprocess", features, data=data.path, settings=settings)
