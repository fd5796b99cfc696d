"""The `preprocess` step as a pipeline component."""

from typing import List  # noqa: UP035 - KFP supports no other spelling for a list of artifacts

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def preprocess(data: dsl.Input[dsl.Dataset], settings: str, features: dsl.Output[dsl.Dataset]) -> None:
    """Extracts the features of a corpus."""
    from components.runner import run_step

    run_step("preprocess", features, data=data.path, settings=settings)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def preprocess_joined(
    data: dsl.Input[dsl.Dataset],
    settings: str,
    parts: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    features: dsl.Output[dsl.Dataset],
) -> None:
    """Joins the parts that `preprocess_part` extracted."""
    from components.runner import run_step

    run_step("preprocess", features, data=data.path, settings=settings, parts=[part.path for part in parts])
