"""The `evaluate` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def evaluate(
    data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    training: dsl.Input[dsl.Model],
    finetuning: dsl.Input[dsl.Model],
    settings: str,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    html: dsl.Output[dsl.HTML],
) -> None:
    """Evaluates the voice on held-out and training sentences."""
    from components.runner import run_step

    run_step(
        "evaluate",
        evaluation,
        {"metrics": metrics, "html": html},
        data=data.path,
        features=features.path,
        training=training.path,
        finetuning=finetuning.path,
        settings=settings,
    )
