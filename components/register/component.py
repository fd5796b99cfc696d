"""The `register` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def register(
    data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    training: dsl.Input[dsl.Model],
    finetuning: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    name: str,
    registration: dsl.Output[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    origin: str = "{}",
) -> None:
    """Registers the evaluated voice as a model version, the new candidate."""
    from components.runner import run_step

    run_step(
        "register",
        registration,
        {"model": model},
        data=data.path,
        features=features.path,
        training=training.path,
        finetuning=finetuning.path,
        evaluation=evaluation.path,
        name=name,
        origin=origin,
    )
