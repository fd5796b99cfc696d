"""The `configure` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def configure(
    data: str,
    remote: str,
    corpus: str,
    name: str,
    model_size: str,
    optimization_level: str,
    start_from: str,
    max_steps: str,
    batch_size: str,
    learning_rate: str,
    vocoder: str,
    seed: str,
    settings: str,
    configuration: dsl.Output[dsl.Artifact],
    markdown: dsl.Output[dsl.Markdown],
    data_hash: dsl.OutputPath(str),  # type: ignore[valid-type]
    evaluation_data: dsl.OutputPath(str),  # type: ignore[valid-type]
    model_name: dsl.OutputPath(str),  # type: ignore[valid-type]
    preprocess_settings: dsl.OutputPath(str),  # type: ignore[valid-type]
    train_settings: dsl.OutputPath(str),  # type: ignore[valid-type]
    finetune_vocoder_settings: dsl.OutputPath(str),  # type: ignore[valid-type]
    evaluate_settings: dsl.OutputPath(str),  # type: ignore[valid-type]
    gate_settings: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> None:
    """Resolves the parameters of a run: the version of the data, the base voice, and the settings of each step."""
    from components.runner import run_step

    run_step(
        "configure",
        configuration,
        {"markdown": markdown},
        {
            "data_hash": data_hash,
            "evaluation_data": evaluation_data,
            "model_name": model_name,
            "preprocess_settings": preprocess_settings,
            "train_settings": train_settings,
            "finetune_vocoder_settings": finetune_vocoder_settings,
            "evaluate_settings": evaluate_settings,
            "gate_settings": gate_settings,
        },
        data=data,
        remote=remote,
        corpus=corpus,
        name=name,
        model_size=model_size,
        optimization_level=optimization_level,
        start_from=start_from,
        max_steps=max_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        vocoder=vocoder,
        seed=seed,
        settings=settings,
    )
