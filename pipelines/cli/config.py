"""`myxtts config`: shows the resolved settings with their origins, and runs the pre-training checklist."""

import json

import click

from model.config.resolution import Resolved, flatten
from model.diagnosis.checklist import checklist
from pipelines.cli.console import show_findings
from pipelines.cli.options import TRAINING_FLAGS, json_option, settings_options


@click.group()
def config() -> None:
    """Show and check settings."""


@config.command()
@click.option("--changed", is_flag=True, help="Only settings that differ from their defaults.")
@json_option
@settings_options(*TRAINING_FLAGS)
def show(settings: Resolved, changed: bool, as_json: bool) -> None:
    """Show all settings with value and origin, and the number of parameters of the acoustic model."""
    values = flatten(settings.config.model_dump())
    if changed:
        values = {key: values[key] for key in settings.differences()}
    parameters = _parameter_count(settings)
    if as_json:
        rows = {key: {"value": value, "origin": settings.origins[key]} for key, value in values.items()}
        click.echo(json.dumps({"settings": rows, "parameters": parameters}, indent=1))
        return
    width = max((len(key) for key in values), default=0)
    for key, value in values.items():
        click.echo(f"{key:{width}}  {value!s:24}  {settings.origins[key]}")
    click.echo(f"\nacoustic model: {parameters / 1e6:.2f} million parameters")


@config.command()
@json_option
@settings_options(*TRAINING_FLAGS)
def check(settings: Resolved, as_json: bool) -> int:
    """Run the checklist of training; exit 1 on a finding. Training starts despite warnings, but not with an error."""
    return show_findings(checklist(settings.config), as_json)


def _parameter_count(settings: Resolved) -> int:
    """Returns the number of parameters of the acoustic model, for one language."""
    import torch

    from model.acoustic.model import AcousticModel, ModelDimensions
    from model.speaker_encoder import ENCODERS
    from model.text.symbols import NUM_STRESSES, NUM_SYMBOLS

    audio, features = settings.config.audio, settings.config.features
    dimensions = ModelDimensions(
        num_symbols=NUM_SYMBOLS,
        num_stresses=NUM_STRESSES,
        num_languages=1,
        speaker_vector_dim=ENCODERS[features.speaker_encoder_model].WIDTH,
        n_mels=audio.n_mels,
        mel_mean=0.0,
        mel_std=1.0,
    )
    with torch.device("meta"):  # shapes only, without memory for the values
        model = AcousticModel(settings.config.model, dimensions)
    return sum(parameter.numel() for parameter in model.parameters())
