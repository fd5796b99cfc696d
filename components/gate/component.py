"""The `gate` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def gate(registration: dsl.Input[dsl.Artifact], settings: str, decision: dsl.Output[dsl.Artifact]):
    """Compare with thresholds and champion; promote when both agree."""
    from components.runner import run_step

    run_step("gate", decision, registration=registration.path, settings=settings)
