"""`myxtts synthesize` takes its text as an argument, from a file or from standard input, whatever it begins with."""

import io

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from model import synthesis
from pipelines.cli.synthesize import synthesize as command


@pytest.fixture
def voice(monkeypatch, tmp_path) -> list[str]:
    """A voice in place of the real one; returns the texts that it has spoken."""
    spoken = []

    class Voice:
        def synthesize(self, text, language, speaker, reference, reference_language, similarity, prosody, style):
            spoken.append(text)
            return synthesis.Speech(
                samples=np.zeros(2560, np.float32),
                sample_rate=22050,
                mel=np.zeros((10, 80), np.float32),
                durations=np.array([10]),
                phones=["a"],
            )

        sample_rate = 22050

        def stream(self, text, language, speaker, reference, reference_language, similarity, prosody, style):
            spoken.append(text)
            yield np.full(100, 0.5, np.float32)
            yield np.full(50, -2.0, np.float32)

    monkeypatch.setattr(synthesis, "Synthesizer", lambda folder, encoder=None: Voice())
    monkeypatch.setattr("components.registry.find_voice", lambda model: tmp_path)
    return spoken


@pytest.fixture
def say(voice, tmp_path):
    """Returns a function from arguments and standard input to (exit status, output, spoken text) of the command."""

    def run(*arguments, given=None):
        voice.clear()
        options = ["--model", "voice", "--output", str(tmp_path / "out.wav")]
        result = CliRunner().invoke(command, [*options, *arguments], input=given)
        return result.exit_code, result.output, voice[0] if voice else None

    return run


@pytest.mark.parametrize(
    "text",
    ["-5 degrees", "-5", "- he said", "-Hello there", "--what now?", "-", "—yes", "-h is a letter", "--speed is up"],
)
def test_a_text_that_begins_with_a_minus_is_no_option(say, text):
    if text == "-":
        assert say(text, given="from input")[2] == "from input"
        return
    assert say(text)[2] == text
    assert say("--", text)[2] == text
    assert say(text, "--speed", "1.5")[2] == text
    assert say("--speed", "1.5", text)[2] == text


def test_options_stay_options(say):
    status, output, _ = say("hello", "--sped", "1.5")
    assert status == 2
    assert "No such option" in output
    assert say("hello", "--language=fa")[2] == "hello"
    assert say("hello", "--pitch-scale", "-1")[0] != 0


@pytest.mark.parametrize("arguments", [(), ("-",), ("--text-file", "-")])
def test_text_comes_from_standard_input(say, arguments):
    assert say(*arguments, given="Hello\nthere.\n")[2] == "Hello\nthere.\n"


def test_text_comes_from_a_file(say, tmp_path):
    path = tmp_path / "story.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "Grüß Gott.".encode())
    assert say("--text-file", str(path))[2] == "Grüß Gott."
    status, output, spoken = say("Hello", "--text-file", str(path))
    assert (status, spoken) == (2, None)
    assert "not both" in output


def test_a_text_that_cannot_be_read_is_named(say, tmp_path):
    path = tmp_path / "story.txt"
    path.write_bytes("Grüß Gott.".encode("latin-1"))
    status, output, _ = say("--text-file", str(path))
    assert status == 2
    assert "story.txt: not UTF-8 (byte 0xfc at 2)" in output
    status, output, _ = say(given="  \n")
    assert status == 2
    assert "standard input: contains no text" in output


def test_a_stream_goes_to_standard_output_and_its_summary_to_standard_error(voice):
    result = CliRunner().invoke(command, ["--model", "voice", "--output", "-", "Hello"])
    assert result.exit_code == 0
    assert result.stderr == "standard output: 0.01 s\n"
    samples, rate = soundfile.read(io.BytesIO(result.stdout_bytes), dtype="int16")
    assert rate == 22050
    assert samples.tolist() == [16383] * 100 + [-32767] * 50


def test_the_help_names_the_default_similarity():
    assert f"[default: {synthesis.DEFAULT_SIMILARITY:g}, and" in " ".join(
        CliRunner().invoke(command, ["--help"]).output.split()
    )
