"""The `train` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def train(
    data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    settings: str,
    experiment: str,
    training: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Trains an acoustic model on the features, exports it as a voice, and records the training in MLflow."""
    from components.runner import run_step

    run_step(
        "train",
        training,
        {"metrics": metrics},
        data=data.path,
        features=features.path,
        settings=settings,
        experiment=experiment,
    )
