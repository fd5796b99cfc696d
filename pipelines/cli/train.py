"""`myxtts train`: trains an acoustic model on a feature store."""

from pathlib import Path

import click

from model.config.resolution import Resolved
from pipelines.cli.options import PATH, TRAINING_FLAGS, features_option, settings_options


@click.command()
@features_option
@click.option(
    "--output", type=PATH, help="Folder of the run [default: one in the state folder, named after settings and data]."
)
@click.option("--experiment", default="", help="MLflow experiment [default: name of the corpus].")
@click.option("--track/--no-track", default=True, show_default=True, help="Record the run in MLflow.")
@click.option("--find-lr", is_flag=True, help="Only run a learning-rate range test; print a proposal, plot the curve.")
@click.option(
    "--profile-steps", type=click.IntRange(0), default=0, help="Measure the time of the parts of this many steps."
)
@settings_options(*TRAINING_FLAGS)
def train(
    settings: Resolved,
    features: Path,
    output: Path | None,
    experiment: str,
    track: bool,
    find_lr: bool,
    profile_steps: int,
) -> None:
    """Train an acoustic model. The same command resumes an interrupted training.

    Several processes: torchrun --nproc-per-node 2 -m pipelines.cli.main train ...
    """
    import logging
    from contextlib import ExitStack

    from components import lineage
    from components.base_voice import base_features
    from components.feature_remote import open_store
    from components.launch import is_first
    from components.state import State
    from components.tracking import MlflowRunLogger
    from model.config.resolution import flatten
    from model.config.training import TrainSettings
    from model.diagnosis.checklist import blocking, check_normalization, check_speaker_contrast, checklist
    from model.training import trainer
    from model.training.kept_speakers import speaker_similarities
    from pipelines.base_voices import start_from_base

    first = is_first()
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    state = State.locate().prepare()
    store = open_store(features, state)
    settings, base = start_from_base(settings, store, state)
    config = settings.config
    train_settings = TrainSettings.of(config)
    for key, (default, value, origin) in settings.differences().items() if first else ():
        click.echo(f"{key} = {value} (default {default}; {origin})")
    findings = [
        *checklist(config),
        check_normalization(store.statistics),
        check_speaker_contrast(config, store.statistics),
    ]
    for finding in findings:
        if finding.severity != "ok" and first:
            click.echo(f"{finding.severity}: {finding.evidence}; {finding.fix}", err=True)
    if blocking(findings):
        raise SystemExit(1)

    name = trainer.run_fingerprint(train_settings, store, base.weights_sha256 if base else "")
    output = output or state.folder("training", name)
    if find_lr:
        from model.training.learning_rate_finder import find_learning_rate

        test = find_learning_rate(train_settings, features, output)
        click.echo(f"proposed: --learning-rate {test.proposed:.2g}   curve: {output / 'learning_rate.png'}")
        return
    rehearsed = None
    if base and train_settings.training.rehearsal:
        rehearsed = open_store(base_features(base.folder, state), state)
    with ExitStack() as stack:
        logger: MlflowRunLogger | None = None
        if track and first:
            params = flatten(config.model_dump(mode="json"))
            run_name = f"{config.model_size}-{name[:8]}"
            tracker = MlflowRunLogger(
                state,
                output / "mlflow",
                experiment or config.corpus.name,
                run_name=run_name,
                tags=lineage.current(),
                params=params,
            )
            logger = stack.enter_context(tracker)
        result = trainer.train(
            train_settings,
            store,
            output,
            logger,
            profile_steps=profile_steps,
            base=base.folder if base else None,
            rehearsed=rehearsed,
            compare_speakers=speaker_similarities,
        )
    if first and profile_steps:
        _show_profile(output / "profile.txt", profile_steps)
    if first:
        click.echo(f"{result.steps} steps; voice of step {result.exported_step}: {result.voice}")
    if first and config.vocoder.type != "griffin_lim":
        click.echo(f"synthesis needs a vocoder for it: myxtts vocoder finetune --model {result.voice} ...")


def _show_profile(path: Path, profile_steps: int) -> None:
    """Prints the profile of a run, or that too few steps were left to measure it."""
    from model.training.profiling import WARM_UP

    if path.is_file():
        click.echo(path.read_text("utf-8"))
    else:
        needed = f"{WARM_UP} + {profile_steps} steps, more than this run had left"
        click.echo(f"no profile: it needs {needed}; `myxtts diagnose gpu` measures one without a run", err=True)
