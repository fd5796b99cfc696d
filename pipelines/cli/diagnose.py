"""`myxtts diagnose`: what is wrong with settings, with a run, with the speed of training; exits 1 on a finding."""

import tempfile
from pathlib import Path

import click

from model.config import Resolved
from model.config.resolution import flatten, resolve
from model.diagnosis.checklist import Finding, checklist, contrast, normalisation
from pipelines.cli.console import show_findings
from pipelines.cli.options import PATH, json_option
from pipelines.cli.settings import settings_options

SLOW_DATA = 0.02
"""Share of a step above which waiting for data is worth a cure."""


@click.group()
def diagnose() -> None:
    """Find what is wrong, with evidence and a cure."""


@diagnose.command()
@click.option("--features", type=PATH, help="Feature store to check along with the settings.")
@json_option
@settings_options("model", "loss", "training", "vocoder")
def config(settings: Resolved, features: Path | None, as_json: bool) -> int:
    """The whole configuration, and with --features the data: `myxtts config check` and more."""
    from model.features.index import FeatureIndex

    findings = checklist(settings.config)
    if features is not None:
        statistics = FeatureIndex.read(features).statistics
        findings += [normalisation(statistics), contrast(settings.config, statistics)]
    return show_findings(findings, as_json)


@diagnose.command()
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Output folder of a training, or one of its checkpoints.",
)
@json_option
def convergence(checkpoint: Path, as_json: bool) -> int:
    """A run, from its history and its last checkpoint: does it converge?"""
    from model.diagnosis.convergence import diagnose_convergence

    return show_findings(diagnose_convergence(checkpoint), as_json)


@diagnose.command()
@click.option("--features", type=PATH, required=True, help="Feature store to train on.")
@click.option("--profile-steps", type=click.IntRange(1), default=100, show_default=True, help="Steps to measure.")
@json_option
@settings_options("model", "loss", "training")
def gpu(settings: Resolved, features: Path, profile_steps: int, as_json: bool) -> int:
    """Train a few steps that are thrown away, and say where their time goes."""
    from model.training.history import read_history
    from model.training.profiling import WARM_UP, profile_table
    from model.training.trainer import train

    steps = WARM_UP + profile_steps
    changes = {"training.max_steps": steps, "training.enable_evaluation": False, "training.log_interval": steps}
    config = resolve(overrides={**flatten(settings.config.model_dump()), **changes}).config
    with tempfile.TemporaryDirectory() as scratch:
        train(config, features, Path(scratch) / "run", profile_steps=profile_steps)
        records = read_history(Path(scratch) / "run" / "history.jsonl")
    profile = {name: value for line in records for name, value in line.items() if name.startswith("profile/")}
    if not as_json:
        click.echo(profile_table(profile) + "\n")
    shapes = int(next(line["train/distinct_shapes"] for line in records if "train/distinct_shapes" in line))
    return show_findings([_data_wait(profile), _shapes(shapes, steps, config.training.num_shape_buckets)], as_json)


def _data_wait(profile: dict[str, float]) -> Finding:
    share = profile["profile/data_ms"] / sum(profile.values())
    evidence = f"{100 * share:.2f} % of a step waits for data"
    if share < SLOW_DATA:
        return Finding("data does not hold up training", "ok", evidence)
    return Finding(
        "data does not hold up training", "warning", evidence, "raise training.buffer_size and training.num_workers"
    )


def _shapes(shapes: int, steps: int, buckets: int) -> Finding:
    evidence = f"{shapes} distinct shapes in {steps} steps"
    if shapes <= buckets:
        return Finding("shapes are few", "ok", evidence)
    cure = f"on a GPU, or compiled: training.enable_static_shapes makes it {buckets} at most"
    return Finding("shapes are few", "warning", evidence, cure)
