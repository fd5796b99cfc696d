"""The `prepare_study` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def prepare_study(
    data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    study: str,
    data_hash: str,
    evaluation_data: str,
    remote: str,
    experiment: str,
    name: str,
    preprocess_settings: str,
    study_settings: str,
    finetune_vocoder_settings: str,
    evaluate_settings: str,
    gate_settings: str,
    prepared: dsl.Output[dsl.Artifact],
) -> None:
    """Creates a study with its trials and its MLflow run, before its workers start."""
    from components.runner import run_step

    run_step(
        "prepare_study",
        prepared,
        data=data.path,
        features=features.path,
        study=study,
        data_hash=data_hash,
        evaluation_data=evaluation_data,
        remote=remote,
        experiment=experiment,
        name=name,
        preprocess_settings=preprocess_settings,
        study_settings=study_settings,
        finetune_vocoder_settings=finetune_vocoder_settings,
        evaluate_settings=evaluate_settings,
        gate_settings=gate_settings,
    )
