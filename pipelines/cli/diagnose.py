"""`myxtts diagnose`: finds problems in settings, in a run, in the speed of training; exits 1 on a finding."""

from pathlib import Path

import click

from model.config.resolution import Resolved
from model.diagnosis.checklist import check_normalization, check_speaker_contrast, checklist
from pipelines.cli.console import show_findings
from pipelines.cli.options import PATH, TRAINING_FLAGS, json_option, settings_options


@click.group()
def diagnose() -> None:
    """Find problems, with evidence and a fix."""


@diagnose.command()
@click.option("--features", type=PATH, help="Feature store to check together with the settings.")
@json_option
@settings_options(*TRAINING_FLAGS)
def config(settings: Resolved, features: Path | None, as_json: bool) -> int:
    """Check the settings as `myxtts config check` does and, with --features, the data."""
    from model.features.index import FeatureIndex

    findings = checklist(settings.config)
    if features is not None:
        statistics = FeatureIndex.read(features).statistics
        findings += [check_normalization(statistics), check_speaker_contrast(settings.config, statistics)]
    return show_findings(findings, as_json)


@diagnose.command()
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Output folder of a training run, or one of its checkpoints.",
)
@json_option
def convergence(checkpoint: Path, as_json: bool) -> int:
    """Check from its history and its last checkpoint whether a run converges."""
    from model.diagnosis.convergence import diagnose_convergence

    return show_findings(diagnose_convergence(checkpoint), as_json)


@diagnose.command()
@click.option("--features", type=PATH, required=True, help="Feature store to train on.")
@click.option("--profile-steps", type=click.IntRange(1), default=100, show_default=True, help="Steps to measure.")
@json_option
@settings_options(*TRAINING_FLAGS)
def gpu(settings: Resolved, features: Path, profile_steps: int, as_json: bool) -> int:
    """Measure the time of the parts of a training step. The trained weights are discarded."""
    from model.config.training import TrainSettings
    from model.diagnosis.gpu import diagnose_gpu
    from model.training.profiling import profile_table

    profile, findings = diagnose_gpu(TrainSettings.of(settings.config), features, profile_steps)
    if not as_json:
        click.echo(profile_table(profile) + "\n")
    return show_findings(findings, as_json)
