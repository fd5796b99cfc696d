"""The generated corpus: sentences spoken by flite (English) or by espeak-ng (with times of phones)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from model.audio.io import read_source
from model.config.data import CorpusConfig
from model.corpus.sources import Sound, Source, Utterance
from model.errors import CorpusError
from model.text.espeak import speak
from model.text.languages import language_of
from model.text.normalize import normalize

FLITE_VOICES = ("slt", "rms", "awb", "kal16")
ESPEAK_VARIANTS = ("", "f2", "m3", "f4", "m7", "f1", "m1", "f3")
"""Variants of an espeak-ng voice with different pitch and timbre; the plain voice first."""
FLITE_TIMEOUT = 60
"""In seconds; a sentence takes about 50 ms."""


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of the generated corpus: `sentences_per_voice` sentences for each voice of a language.

    The voices of a language start at different positions of the list, to cover as many sentences as possible.

    Raises:
        CorpusError: there are fewer voices or sentences than requested, or flite is requested but not installed.
    """
    engine = english_engine(config.engine)
    utterances: list[Utterance] = []
    for language, speaking, count in (
        ("en", engine, config.english_voices),
        ("fa", "espeak", config.persian_voices),
    ):
        voices = _voices(language, speaking, count)
        sentences = read_sentences(config.path, language) if voices else []
        if config.sentences_per_voice > len(sentences) and voices:
            raise CorpusError(
                f"corpus.sentences_per_voice is {config.sentences_per_voice}, but there are {len(sentences)} sentences "
                f"in language {language!r}; lower it, or add sentences to sentences_{language}.txt in corpus.path"
            )
        for number, (speaker, record) in enumerate(voices):
            first = number * len(sentences) // len(voices)
            for offset in range(config.sentences_per_voice):
                index = (first + offset) % len(sentences)
                utterances.append(
                    Utterance(
                        id=f"{speaker}_{index + 1:03d}",
                        text=sentences[index],
                        language=language,
                        speaker=speaker,
                        origin=f"voice {speaker}",
                        record=partial(record, sentences[index]),
                    )
                )
    engines = (engine, "espeak") if config.persian_voices else (engine,)
    return Source(utterances=utterances, engines=tuple(dict.fromkeys(engines)))


def english_engine(wanted: str) -> str:
    """Returns the synthesizer of generated English: `flite` or `espeak`.

    Raises:
        CorpusError: flite is requested but not installed.
    """
    installed = shutil.which("flite") is not None
    if wanted == "flite" and not installed:
        raise CorpusError(
            "corpus.engine is flite, but the program `flite` is missing; install it (apt-get install flite) or set "
            "corpus.engine to espeak"
        )
    return "flite" if installed and wanted != "espeak" else "espeak"


def read_sentences(folder: str, language: str) -> list[str]:
    """Returns the lines of `sentences_<language>.txt` in `folder`, or of the shipped list.

    Raises:
        CorpusError: the list is missing or not UTF-8.
    """
    path = (Path(folder) if folder else Path(__file__).parents[1]) / f"sentences_{language}.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorpusError(f"{path}: no such list of sentences; set corpus.path to a folder that has it") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _voices(language: str, engine: str, count: int) -> Sequence[tuple[str, Callable[[str], Sound]]]:
    """Returns (speaker name, function that speaks a text) of the first `count` voices."""
    if engine == "flite":
        voices = [(f"flite_{name}", partial(_speak_flite, voice=name)) for name in FLITE_VOICES]
    else:
        plain = language_of(language).voice
        names = [f"{plain}+{variant}" if variant else plain for variant in ESPEAK_VARIANTS]
        voices = [
            (f"espeak_{language}_{number}", partial(_speak_espeak, voice=name, language=language))
            for number, name in enumerate(names, 1)
        ]
    if count > len(voices):
        key = {"en": "corpus.english_voices", "fa": "corpus.persian_voices"}[language]
        raise CorpusError(f"{key} is {count}, but {engine} has {len(voices)} voices here; lower it")
    return voices[:count]


def _speak_espeak(text: str, voice: str, language: str) -> Sound:
    samples, rate, timings = speak(normalize(text, language).text, voice)
    return Sound(samples=samples, sample_rate=rate, timings=timings)


def _speak_flite(text: str, voice: str) -> Sound:
    with tempfile.TemporaryDirectory(prefix="myxtts-") as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "-t", text, "-o", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FLITE_TIMEOUT, check=False)
        except subprocess.TimeoutExpired as error:
            raise CorpusError(
                f"flite did not speak {text!r} within {FLITE_TIMEOUT} s; set corpus.engine to espeak"
            ) from error
        if done.returncode != 0 or not path.is_file():
            raise CorpusError(f"flite failed on {text!r} (exit {done.returncode}): {done.stderr.strip()}")
        samples, rate = read_source(path)
    return Sound(samples=samples, sample_rate=rate)
