"""`myxtts synthesize`: text to a WAV file, with a trained voice or a registered one."""

from pathlib import Path

import click

from pipelines.cli.options import PATH, model_option


@click.command()
@click.argument("text")
@model_option
@click.option("--output", type=PATH, default=Path("speech.wav"), show_default=True)
@click.option("--language", default="", help="Language of the text, whoever speaks it [default: the speaker's].")
@click.option(
    "--speaker", default="", help="One of the voice's speakers, in any language [default: the first that speaks it]."
)
@click.option("--reference", type=PATH, help="A recording whose voice is cloned.")
@click.option(
    "--reference-language", default="", help="What is spoken in it [default: the text's language]; keeps its sound."
)
@click.option("--speed", type=float, default=1.0, show_default=True)
@click.option("--pitch-scale", type=float, default=1.0, show_default=True)
@click.option("--energy-scale", type=float, default=1.0, show_default=True)
@click.option("--style-reference", type=PATH, help="A recording whose style is taken.")
@click.option("--style-weights", help="Weights of the style tokens, as 0.5,0,0.5,...")
@click.option("--latent", help="Values of the latent, as 0.1,-0.2,...")
@click.option("--variation", type=float, default=0.0, show_default=True, help="Random part of the latent, 0 to 2.")
def synthesize(text: str, model: str, output: Path, **options) -> None:
    """Speak TEXT and write a WAV file."""
    from components.registry import find_voice, is_registered, registered_speaker_encoder
    from model.audio.io import write_audio
    from model.synthesis import ProsodyControls, StyleControls, Synthesizer

    prosody = ProsodyControls(*(options.pop(name) for name in ("speed", "pitch_scale", "energy_scale")))
    style = StyleControls(
        options.pop("style_reference"),
        *(_numbers(name, options.pop(name)) for name in ("style_weights", "latent")),
        options.pop("variation"),
    )
    folder = find_voice(model)
    speaker_encoder = registered_speaker_encoder(folder) if is_registered(model) else None
    speech = Synthesizer.load(folder, speaker_encoder).synthesize(text, **options, prosody=prosody, style=style)
    write_audio(output, speech.samples, speech.sample_rate)
    click.echo(f"{output}: {len(speech.samples) / speech.sample_rate:.2f} s")


def _numbers(name: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"--{name.replace('_', '-')} {text!r}: give numbers between commas") from error
