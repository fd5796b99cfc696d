"""The `gate` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def gate(
    data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    training: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    registration: dsl.Input[dsl.Artifact],
    settings: str,
    evaluate_settings: str,
    decision: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    markdown: dsl.Output[dsl.Markdown],
    html: dsl.Output[dsl.HTML],
) -> None:
    """Compares the candidate with thresholds and with the champion, and promotes it if it passes both."""
    from components.runner import run_step

    run_step(
        "gate",
        decision,
        {"metrics": metrics, "markdown": markdown, "html": html},
        data=data.path,
        features=features.path,
        training=training.path,
        evaluation=evaluation.path,
        registration=registration.path,
        settings=settings,
        evaluate_settings=evaluate_settings,
    )
