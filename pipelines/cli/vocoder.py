"""`myxtts vocoder`: train and fine-tune a neural vocoder, take official weights in, and give them out."""

import json
from pathlib import Path
from typing import Any

import click

from model.config.resolution import Resolved
from pipelines.cli.options import PATH, corpus_option, features_option, json_option, model_option
from pipelines.cli.settings import settings_options

track_option = click.option("--track/--no-track", default=True, show_default=True, help="Record the run in MLflow.")


@click.group()
def vocoder() -> None:
    """Neural vocoders: HiFi-GAN and UnivNet."""


@vocoder.command()
@features_option
@corpus_option
@click.option("--output", type=PATH, required=True, help="Folder of the run; it is gone on with.")
@track_option
@settings_options("vocoder")
def train(settings: Resolved, features: Path, corpus: Path, output: Path, track: bool) -> None:
    """Train a vocoder on the recordings of a corpus, or go on where the same command was interrupted.

    With --vocoder-checkpoint it trains these weights on, for --vocoder-max-steps further steps.
    """
    from model.vocoder_training.finetuning import base_vocoder

    config = _neural(settings)
    start = _checkpoint(config) if config.vocoder.checkpoint else None
    with _logger(config, output, track) as logger:
        base_vocoder(config, features, corpus, output, logger, start)
    click.echo(f"vocoder: {output / 'vocoder'}")


@vocoder.command()
@model_option
@features_option
@corpus_option
@click.option("--output", type=PATH, required=True, help="Folder of the run; it is gone on with.")
@track_option
@json_option
@settings_options("vocoder")
def finetune(
    settings: Resolved, model: str, features: Path, corpus: Path, output: Path, track: bool, as_json: bool
) -> None:
    """Fine-tune --vocoder-checkpoint on the mels of a voice, and write the voice with this vocoder.

    With --vocoder-finetune-steps 0 the vocoder is only measured on these mels, and given to the voice as it is.
    """
    from components.registry import find_voice
    from model.vocoder_training.finetuning import finetune as run

    config = _neural(settings)
    if not config.vocoder.checkpoint:
        raise click.UsageError("give --vocoder-checkpoint; `myxtts vocoder train` or `import` makes one")
    start = _checkpoint(config)
    voice = find_voice(model)
    with _logger(config, output, track) as logger:
        report = run(config, voice, features, corpus, start, output, logger)
    rows = {"before": report.before, "after": report.after, "griffin_lim": report.griffin_lim}
    if as_json:
        click.echo(json.dumps({**rows, "clips": report.clips, "notes": report.notes, "voice": str(report.voice)}))
        return
    click.echo(f"{'held-out clips':<16}" + "".join(f"{name.replace('_', ' '):>18}" for name in report.after))
    for name, values in rows.items():
        shown = (f"{values[key]:>18.4f}" if key in values else f"{'-':>18}" for key in report.after)
        click.echo(f"{name.replace('_', '-'):<16}" + "".join(shown))
    if config.vocoder.finetune_steps:
        click.echo(report.gain())
    click.echo("".join(f"{note}\n" for note in report.notes) + f"voice: {report.voice}")


@vocoder.command(name="import")
@click.argument("source")
@click.option("--output", type=PATH, required=True, help="The vocoder's folder.")
@click.option("--sha256", default="", help="Of the file; required where it is fetched.")
@json_option
@settings_options()
def import_command(settings: Resolved, source: str, output: Path, sha256: str, as_json: bool) -> None:
    """Take in SOURCE, an official HiFi-GAN or UnivNet file (a path, https:// or s3://), if it fits our mels."""
    from components.fetching import fetch_checkpoint
    from components.state import State
    from model.vocoder.folder import read_description, read_vocoder, write_vocoder

    found = fetch_checkpoint(source, sha256, State.locate().prepare().folder("fetched"))
    write_vocoder(output, read_vocoder(found, settings.config.audio))
    _describe(output, read_description(output), as_json)


@vocoder.command()
@click.argument("folder", type=PATH)
@click.option("--output", type=PATH, required=True, help="Folder for the official files.")
@json_option
def export(folder: Path, output: Path, as_json: bool) -> None:
    """Write the vocoder in FOLDER (a vocoder's or a voice's) as files that the official programs load."""
    from model.vocoder.folder import read_vocoder
    from model.vocoder.official import write_official
    from model.voice_folder import vocoder_of

    files = write_official(output, read_vocoder(vocoder_of(folder) or folder))
    click.echo(json.dumps([str(path) for path in files]) if as_json else "\n".join(str(path) for path in files))


def _checkpoint(config: Any) -> Any:
    """The weights that the settings start from, fetched where they are elsewhere."""
    from components.fetching import fetch_checkpoint
    from components.state import State
    from model.vocoder.architectures import variant_of
    from model.vocoder.folder import read_vocoder

    settings = config.vocoder
    fetched = State.locate().prepare().folder("fetched")
    found = fetch_checkpoint(settings.checkpoint, settings.checkpoint_sha256, fetched)
    return read_vocoder(found, None, settings.type, variant_of(settings))


def _neural(settings: Resolved) -> Any:
    """The settings, checked to name a vocoder that can be trained."""
    config = settings.config
    if config.vocoder.type == "griffin_lim":
        raise click.UsageError("griffin_lim needs no training; give --vocoder-type hifigan or univnet")
    return config


def _describe(folder: Path, description: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(description))
        return
    audio = description["audio"]
    click.echo(
        f"{folder}: {description['type']} {description['variant']}, {description['steps']} steps, "
        f"{audio['sample_rate']} Hz, {audio['n_mels']} mel bands up to {audio['fmax']:g} Hz"
    )


def _logger(config: Any, output: Path, track: bool) -> Any:
    """What a run reports to: MLflow, or nothing but its folder."""
    import contextlib
    import logging

    from model.loop.reporting import NullLogger

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not track:
        return contextlib.closing(NullLogger())
    from components import lineage
    from components.state import State
    from components.tracking import MlflowRunLogger
    from model.config.resolution import flatten

    return MlflowRunLogger(
        State.locate().prepare(),
        output / "mlflow",
        config.corpus.name,
        run_name=f"vocoder-{output.name}",
        tags=lineage.current(),
        params=flatten(config.vocoder.model_dump(mode="json")),
    )
