"""`myxtts vocoder`: trains, fine-tunes, imports and exports neural vocoders."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model.config.resolution import Resolved
from model.config.vocoder import FinetuneVocoderSettings
from pipelines.cli.options import (
    MODEL_FLAGS,
    PATH,
    VOCODER_FLAGS,
    corpus_option,
    features_option,
    json_option,
    model_option,
    settings_options,
)

if TYPE_CHECKING:
    from model.loop.reporting import RunLogger
    from model.vocoder.official import VocoderWeights

track_option = click.option("--track/--no-track", default=True, show_default=True, help="Record the run in MLflow.")
output_option = click.option(
    "--output", type=PATH, required=True, help="Folder of the run; the same command resumes a run in it."
)


@click.group()
def vocoder() -> None:
    """Neural vocoders: HiFi-GAN, UnivNet and Vocos."""


@vocoder.command()
@features_option
@corpus_option
@output_option
@track_option
@settings_options(*VOCODER_FLAGS)
def train(settings: Resolved, features: Path, corpus: Path, output: Path, track: bool) -> None:
    """Train a vocoder on the recordings of a corpus. The same command resumes an interrupted training.

    With --vocoder-checkpoint, training starts from these weights and takes --vocoder-max-steps further steps.
    """
    from model.vocoder_training.finetuning import base_vocoder

    config = _neural(settings)
    start = _checkpoint(config) if config.vocoder.checkpoint else None
    with _logger(config, settings.config.corpus.name, output, track) as logger:
        base_vocoder(config, features, corpus, output, logger, start)
    click.echo(f"vocoder: {output / 'vocoder'}")


@vocoder.command()
@model_option
@features_option
@corpus_option
@output_option
@track_option
@json_option
@settings_options(*VOCODER_FLAGS)
def finetune(
    settings: Resolved, model: str, features: Path, corpus: Path, output: Path, track: bool, as_json: bool
) -> None:
    """Fine-tune --vocoder-checkpoint on the mels of a voice, and write the voice with this vocoder.

    With --vocoder-finetune-steps 0 the vocoder is only evaluated on these mels, and written with the voice unchanged.
    """
    from components.registry import find_voice
    from model.vocoder_training.finetuning import finetune as run

    config = _neural(settings)
    if not config.vocoder.checkpoint:
        raise click.UsageError("give --vocoder-checkpoint; `myxtts vocoder train` or `import` makes one")
    start = _checkpoint(config)
    voice = find_voice(model)
    with _logger(config, settings.config.corpus.name, output, track) as logger:
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
@click.option("--output", type=PATH, required=True, help="Folder to write the vocoder to.")
@click.option("--sha256", default="", help="SHA-256 of the file; required for a download.")
@json_option
@settings_options(*MODEL_FLAGS)
def import_command(settings: Resolved, source: str, output: Path, sha256: str, as_json: bool) -> None:
    """Import SOURCE, an official file of HiFi-GAN, UnivNet or Vocos, if its mel settings are ours.

    SOURCE is a path, or an https:// or s3:// address.
    """
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
    """Write the vocoder in FOLDER (of a vocoder or a voice) as files that the official programs load."""
    from model.vocoder.folder import read_vocoder
    from model.vocoder.official import write_official
    from model.voice_folder import vocoder_of

    files = write_official(output, read_vocoder(vocoder_of(folder) or folder))
    click.echo(json.dumps([str(path) for path in files]) if as_json else "\n".join(str(path) for path in files))


def _checkpoint(config: FinetuneVocoderSettings) -> "VocoderWeights":
    """Loads the weights of `vocoder.checkpoint`, downloaded if it is an address."""
    from components.fetching import fetch_checkpoint
    from components.state import State
    from model.vocoder.architectures import variant_of
    from model.vocoder.folder import read_vocoder

    settings = config.vocoder
    fetched = State.locate().prepare().folder("fetched")
    found = fetch_checkpoint(settings.checkpoint, settings.checkpoint_sha256, fetched)
    return read_vocoder(found, None, settings.type, variant_of(settings))


def _neural(settings: Resolved) -> FinetuneVocoderSettings:
    """Returns the settings of vocoder training.

    Raises:
        click.UsageError: the vocoder is Griffin-Lim.
    """
    config = FinetuneVocoderSettings.of(settings.config)
    if config.vocoder.type == "griffin_lim":
        raise click.UsageError("griffin_lim has no weights to train; give --vocoder-type vocos, hifigan or univnet")
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


def _logger(
    config: FinetuneVocoderSettings, experiment: str, output: Path, track: bool
) -> AbstractContextManager["RunLogger"]:
    """Returns the logger of a run: MLflow's, or one that discards everything."""
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
        experiment,
        run_name=f"vocoder-{output.name}",
        tags=lineage.current(),
        params=flatten(config.vocoder.model_dump(mode="json")),
    )
