"""The `finetune_vocoder` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def finetune_vocoder(training: dsl.Input[dsl.Model], settings: str, experiment: str, finetuning: dsl.Output[dsl.Model]):
    """The voice with its vocoder, fine-tuned on the mels that the voice's own acoustic model makes."""
    from components.runner import run_step

    run_step("finetune_vocoder", finetuning, training=training.path, settings=settings, experiment=experiment)
