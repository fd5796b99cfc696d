"""The `preprocess_part` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def preprocess_part(data: dsl.Input[dsl.Dataset], settings: str, part: str, shards: dsl.Output[dsl.Dataset]) -> None:
    """Extracts the features of one part of the corpus to shards."""
    from components.runner import run_step

    run_step("preprocess_part", shards, data=data.path, settings=settings, part=part)
