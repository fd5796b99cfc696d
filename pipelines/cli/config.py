"""`myxtts config`: the resolved settings with their origins, and the pre-training checklist."""

import json

import click

from model.config.resolution import Resolved, flatten
from model.diagnosis.checklist import checklist
from pipelines.cli.console import show_findings
from pipelines.cli.options import json_option
from pipelines.cli.settings import settings_options

SECTIONS = ("model", "loss", "training")


@click.group()
def config() -> None:
    """Show and check settings."""


@config.command()
@click.option("--changed", is_flag=True, help="Only what differs from the schema's defaults.")
@json_option
@settings_options(*SECTIONS)
def show(settings: Resolved, changed: bool, as_json: bool) -> None:
    """Every value, where it came from, and the parameter count of the model."""
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
@settings_options(*SECTIONS)
def check(settings: Resolved, as_json: bool) -> int:
    """The checklist before training; exits 1 on a finding. A warning lets training begin, an error does not."""
    return show_findings(checklist(settings.config), as_json)


def _parameter_count(settings: Resolved) -> int:
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
    with torch.device("meta"):  # shapes only: no memory, no time
        model = AcousticModel(settings.config.model, dimensions)
    return sum(parameter.numel() for parameter in model.parameters())
