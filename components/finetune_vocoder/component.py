"""The `finetune_vocoder` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def finetune_vocoder(
    data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    training: dsl.Input[dsl.Model],
    settings: str,
    experiment: str,
    finetuning: dsl.Output[dsl.Model],
) -> None:
    """Gives the voice its vocoder, fine-tuned on the mels that the voice's acoustic model predicts."""
    from components.runner import run_step

    run_step(
        "finetune_vocoder",
        finetuning,
        data=data.path,
        features=features.path,
        training=training.path,
        settings=settings,
        experiment=experiment,
    )
