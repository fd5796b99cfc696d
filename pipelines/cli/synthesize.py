"""`myxtts synthesize`: text to a WAV file, with a trained voice or a registered one."""

import logging
import re
import sys
from pathlib import Path

import click

from pipelines.cli.options import PATH, model_option

_OPTION = re.compile(r"-[A-Za-z]|--[A-Za-z][A-Za-z-]*(=.*)?", re.DOTALL)


class TextCommand(click.Command):
    """A command whose TEXT may begin with a minus: only what is written like an option is taken for one."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Arguments with the texts moved behind `--`, where nothing is an option."""
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
@click.option("--text-file", type=click.Path(path_type=Path, allow_dash=True), help="A file of the text; - for input.")
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
def synthesize(text: str | None, text_file: Path | None, model: str, output: Path, **options) -> None:
    """Speak TEXT and write a WAV file. Without TEXT, or with -, the text is read from standard input."""
    from components.registry import find_voice, is_registered, registered_speaker_encoder
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
    speech = Synthesizer(folder, speaker_encoder).synthesize(text, **options, prosody=prosody, style=style)
    speech.save(output)
    click.echo(f"{output}: {len(speech.samples) / speech.sample_rate:.2f} s")


def _given_text(text: str | None, file: Path | None) -> str:
    """The text of the argument, of a file, or of standard input.

    Raises:
        click.UsageError: none is given, two are, or the file is not UTF-8.
    """
    if text not in (None, "-") and file is not None:
        raise click.UsageError("give TEXT or --text-file, not both")
    if text not in (None, "-"):
        return text
    if file is not None and str(file) != "-":
        data, name = file.read_bytes(), str(file)
    elif text is None and file is None and sys.stdin.isatty():
        raise click.UsageError("no text: give TEXT, --text-file, or text on standard input")
    else:
        data, name = click.get_binary_stream("stdin").read(), "standard input"
    try:
        found = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{name}: not UTF-8 (byte 0x{data[error.start]:02x} at {error.start}); save it as UTF-8"
        ) from error
    if not found.strip():
        raise click.UsageError(f"{name}: no text in it")
    return found


def _numbers(name: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"--{name.replace('_', '-')} {text!r}: give numbers between commas") from error
