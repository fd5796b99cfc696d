"""`myxtts synthesize`: text to a WAV file, with a trained voice or a registered one."""

from pathlib import Path

import click


@click.command()
@click.argument("text")
@click.option("--model", required=True, help="A voice folder, or models:/NAME@ALIAS from the registry.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("speech.wav"), show_default=True)
@click.option("--language", default="", help="Language of the text [default: the speaker's].")
@click.option("--speaker", default="", help="One of the voice's speakers [default: the first].")
@click.option("--reference", type=click.Path(path_type=Path), help="A recording whose voice is cloned.")
@click.option("--speed", type=float, default=1.0, show_default=True)
@click.option("--pitch-scale", type=float, default=1.0, show_default=True)
@click.option("--energy-scale", type=float, default=1.0, show_default=True)
def synthesize(text: str, model: str, output: Path, **controls) -> None:
    """Speak TEXT and write a WAV file."""
    from model.audio.io import write_audio
    from model.synthesis import Synthesizer

    if model.startswith("models:/"):
        from components.registry import voice_folder

        folder = voice_folder(model)
    else:
        folder = Path(model)
    speech = Synthesizer.load(folder).synthesize(text, **controls)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_audio(output, speech.samples, speech.sample_rate)
    click.echo(f"{output}: {len(speech.samples) / speech.sample_rate:.2f} s")
