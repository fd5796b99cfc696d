"""`myxtts synthesize`: text to a WAV file, with a voice folder or a registered voice."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import PATH, model_option

_OPTION = re.compile(r"-[A-Za-z]|--[A-Za-z][A-Za-z-]*(=.*)?", re.DOTALL)


class TextCommand(click.Command):
    """Command whose TEXT may begin with a minus: only words that have the form of an option are parsed as options."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Moves the texts behind `--`, where click parses no options, and parses the result."""
        valued = {
            name for option in self.params if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }  # fmt: skip
        options, texts = [], []
        rest = list(args)
        while rest:
            token = rest.pop(0)
            if token == "--":
                texts += rest
                break
            if token in valued and rest:
                options += [token, rest.pop(0)]
            elif _OPTION.fullmatch(token):
                options.append(token)
            else:
                texts.append(token)
        return super().parse_args(context, [*options, "--", *texts])


@click.command(cls=TextCommand)
@click.argument("text", required=False)
@click.option(
    "--text-file", type=click.Path(path_type=Path, allow_dash=True), help="UTF-8 text file; - for standard input."
)
@model_option
@click.option(
    "--output",
    type=PATH,
    default=Path("speech.wav"),
    show_default=True,
    help="File to write; - streams to standard output.",
)
@click.option("--language", default="", help="Language of the text [default: that of the speaker].")
@click.option(
    "--speaker",
    default="",
    help="One of the speakers of the voice, for any language [default: the first of the language].",
)
@click.option("--reference", type=PATH, help="Recording of the voice to clone.")
@click.option(
    "--reference-language",
    default="",
    help="Language of that recording [default: that of the text]; keeps its timbre in another language.",
)
@click.option(
    "--similarity",
    type=float,
    help="How far the timbre of the clone is moved towards that recording, 0 to 1; more is less intelligible "
    "[default: 0.7, and less for speakers that the voice knows].",
)
@click.option("--speed", type=float, default=1.0, show_default=True, help="Speaking rate, 0.25 to 4.")
@click.option("--pitch-scale", type=float, default=1.0, show_default=True, help="Factor on the pitch, 0.5 to 2.")
@click.option("--energy-scale", type=float, default=1.0, show_default=True, help="Factor on the level, 0.1 to 10.")
@click.option("--style-reference", type=PATH, help="Recording of any speaker whose style is used.")
@click.option("--style-weights", help="Weights of the style tokens, such as 0.5,0,0.5.")
@click.option("--latent", help="Latent vector, such as 0.1,-0.2.")
@click.option(
    "--variation", type=float, default=0.0, show_default=True, help="Standard deviation of the latent, 0 to 2."
)
def synthesize(text: str | None, text_file: Path | None, model: str, output: Path, **options: Any) -> None:
    """Synthesize TEXT and write a WAV file. Without TEXT, or with -, the text is read from standard input.

    With --output -, a WAV stream goes to standard output while it is generated: `... --output - | aplay`.
    """
    from components.registry import find_voice, is_registered, registered_speaker_encoder
    from model.audio.io import write_wav_stream
    from model.synthesis import ProsodyControls, StyleControls, Synthesizer

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    text = _given_text(text, text_file)
    prosody = ProsodyControls(**{name: options.pop(name) for name in ("speed", "pitch_scale", "energy_scale")})
    style = StyleControls(
        reference=options.pop("style_reference"),
        token_weights=_numbers("style_weights", options.pop("style_weights")),
        latent=_numbers("latent", options.pop("latent")),
        variation=options.pop("variation"),
    )
    folder = find_voice(model)
    speaker_encoder = registered_speaker_encoder(folder) if is_registered(model) else None
    voice = Synthesizer(folder, speaker_encoder)
    if str(output) == "-":
        chunks = voice.stream(text, **options, prosody=prosody, style=style)
        written = write_wav_stream(sys.stdout.buffer, chunks, voice.sample_rate)
        click.echo(f"standard output: {written / voice.sample_rate:.2f} s", err=True)
        return
    speech = voice.synthesize(text, **options, prosody=prosody, style=style)
    speech.save(output)
    click.echo(f"{output}: {len(speech.samples) / speech.sample_rate:.2f} s")


def _given_text(text: str | None, file: Path | None) -> str:
    """Returns the text of the argument, of a file, or of standard input.

    Raises:
        click.UsageError: there is no text, there are two, or it is not UTF-8.
    """
    if text is not None and text != "-":
        if file is not None:
            raise click.UsageError("give TEXT or --text-file, not both")
        return text
    if file is not None and str(file) != "-":
        data, name = file.read_bytes(), str(file)
    elif text is None and file is None and sys.stdin.isatty():
        raise click.UsageError("no text: give TEXT, --text-file, or text on standard input")
    else:
        data, name = sys.stdin.buffer.read(), "standard input"
    try:
        found = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{name}: not UTF-8 (byte 0x{data[error.start]:02x} at {error.start}); save it as UTF-8"
        ) from error
    if not found.strip():
        raise click.UsageError(f"{name}: contains no text")
    return found


def _numbers(name: str, text: str | None) -> list[float] | None:
    """Parses numbers between commas."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"--{name.replace('_', '-')} {text!r}: give numbers between commas") from error
