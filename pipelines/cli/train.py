"""`myxtts train`: an acoustic model from a feature store, with every setting as a flag."""

from pathlib import Path

import click

from model.config import Resolved
from pipelines.cli.settings import settings_options


@click.command()
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    default=Path("data/features"),
    show_default=True,
    help="Feature store, made by `myxtts features build`.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of the run [default: one per settings and data]."
)
@click.option("--experiment", default="", help="MLflow experiment [default: the corpus's name].")
@click.option("--track/--no-track", default=True, show_default=True, help="Record the run in MLflow.")
@settings_options("model", "loss", "training", "vocoder")
def train(settings: Resolved, features: Path, output: Path | None, experiment: str, track: bool) -> None:
    """Train, or go on where the same command was interrupted."""
    import logging

    from components.state import State
    from components.tracking import MlflowRunLogger
    from model.config.resolution import flatten
    from model.diagnosis.checklist import blocking, checklist
    from model.features.store import FeatureStore
    from model.training import trainer
    from model.training.logging import NullLogger

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = settings.config
    for key, (default, value, origin) in settings.differences().items():
        click.echo(f"{key} = {value} (default {default}; {origin})")
    findings = checklist(config)
    for finding in findings:
        if finding.severity != "ok":
            click.echo(f"{finding.severity}: {finding.evidence}; {finding.cure}", err=True)
    if blocking(findings):
        raise SystemExit(1)

    state = State.locate().prepare()
    name = trainer.run_fingerprint(config, FeatureStore(features))
    output = output or state.folder("training", name)
    logger = NullLogger()
    if track:
        params = flatten(config.model_dump(mode="json"))
        logger = MlflowRunLogger(
            state, output / "mlflow", experiment or config.corpus.name, f"{config.model_size}-{name[:8]}", {}, params
        )
    try:
        result = trainer.train(config, features, output, logger)
    finally:
        logger.close()
    click.echo(f"{result.steps} steps; voice, of step {result.exported_step}: {result.voice}")
