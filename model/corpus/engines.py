"""Speech synthesizers that speak a generated corpus, and the choice among those that are installed."""

from __future__ import annotations

import importlib.metadata
import logging
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from model.audio.io import read_source, resample
from model.corpus.sources import Sound
from model.errors import CorpusError
from model.text.espeak import speak
from model.text.languages import language_of
from model.text.normalize import normalize

logger = logging.getLogger(__name__)

AUTO = "auto"
FLITE_SECONDS = 60
"""Time limit of a flite process in seconds. A sentence takes about 0.1 s."""
PICO_SAMPLE_RATE = 16000
PICO_LOCALES = {"de": "de-DE", "es": "es-ES", "fr": "fr-FR", "it": "it-IT"}
"""Language -> its only locale. English has two."""
PICO_VOLUME, PICO_ENGLISH_VOLUME = 40, 50
"""Percent. At 100 Pico clips all sentences, in English at 70 some of the deepest voice, and at these values none."""
PICO_FIX = "reinstall ttspico, or set corpus.engine to espeak"


class Engine(ABC):
    """A speech synthesizer. Equal text and voice give equal samples, from any thread.

    Attributes:
        name: Value of `corpus.engine`.
        install: How to install it.
    """

    name: ClassVar[str]
    install: ClassVar[str]

    @abstractmethod
    def version(self) -> str | None:
        """Returns the installed version, or `None` if the engine is not installed."""

    @abstractmethod
    def voices(self, language: str) -> tuple[str, ...]:
        """Returns the voices of a language, in the order in which a corpus uses them."""

    @abstractmethod
    def speak(self, text: str, voice: str, language: str) -> Sound:
        """Synthesizes a text.

        Raises:
            CorpusError: the engine fails.
        """


class Flite(Engine):
    """CMU Flite, the program of Debian's package `flite`.

    Flite has four speakers of English. Further voices are these speakers with scaled formants and pitch (`slt 0.86`).
    """

    name = "flite"
    install = "apt-get install flite"

    def version(self) -> str | None:
        return _flite_version(shutil.which("flite"))

    def voices(self, language: str) -> tuple[str, ...]:
        scaled = ("rms 1.16", "slt 0.86", "awb 1.12", "rms 0.9")
        return ("slt", "rms", "awb", "kal16", *scaled) if language == "en" else ()

    def speak(self, text: str, voice: str, language: str) -> Sound:
        with tempfile.TemporaryDirectory(prefix="myxtts-") as folder:
            path = Path(folder) / "speech.wav"
            speaker, _, scale = voice.partition(" ")
            factor = float(scale or 1)
            stretch = ("--setf", f"duration_stretch={factor}")
            command = ["flite", "-voice", speaker, *stretch, "-t", normalize(text, language).text, "-o", str(path)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=FLITE_SECONDS, check=False)
            except subprocess.TimeoutExpired as error:
                raise CorpusError(
                    f"flite did not speak {text!r} within {FLITE_SECONDS} s; set corpus.engine to pico or espeak"
                ) from error
            if done.returncode != 0 or not path.is_file():
                raise CorpusError(f"flite failed on {text!r} (exit status {done.returncode}): {done.stderr.strip()}")
            samples, rate = read_source(path)
        return Sound(samples=scale_formants(samples, rate, factor), sample_rate=rate)


class Pico(Engine):
    """SVOX Pico in this process, from the package `ttspico`.

    Pico has one speaker for each locale. Further voices are these speakers with another pitch, in percent of theirs,
    and scaled formants, both after the locale (`en-US 60 0.84`).
    """

    name = "pico"
    install = "pip install -c constraints.txt ttspico, which needs a C compiler"

    def version(self) -> str | None:
        return _pico_version()

    def voices(self, language: str) -> tuple[str, ...]:
        if language == "en":
            changed = ("en-US 70", "en-US 140", "en-US 60 0.84", "en-GB 60 0.84", "en-US 85 0.92", "en-GB 75 0.9")
            return ("en-US", "en-GB", *changed)
        if locale := PICO_LOCALES.get(language):
            return (locale, f"{locale} 60 0.84", f"{locale} 140", f"{locale} 70")
        return ()

    def speak(self, text: str, voice: str, language: str) -> Sound:
        from ttspico import TtsEngine

        locale, *changes = voice.split()
        pitch = float(changes[0]) if changes else 100.0
        factor = float(changes[1]) if len(changes) > 1 else 1.0
        try:
            engine = TtsEngine(locale)  # a new one (8 ms): its prosody depends on the sentences that it spoke before
            engine.pitch = round(pitch / factor)
            engine.rate = round(100 / factor)
            engine.volume = PICO_ENGLISH_VOLUME if locale.startswith("en") else PICO_VOLUME
            data = engine.speak(normalize(text, language).text)
        except RuntimeError as error:
            raise CorpusError(f"pico failed on {text!r} (voice {voice}): {error}; {PICO_FIX}") from error
        if not data:
            raise CorpusError(f"pico gives no sound for {text!r} (voice {voice}); {PICO_FIX}")
        samples = np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768.0
        return Sound(samples=scale_formants(samples, PICO_SAMPLE_RATE, factor), sample_rate=PICO_SAMPLE_RATE)


class Espeak(Engine):
    """espeak-ng in this process: it has voices for all languages and reports the time of every phone."""

    name = "espeak"
    install = "pip install espeakng-loader"

    def version(self) -> str | None:
        return importlib.metadata.version("espeakng-loader")

    def voices(self, language: str) -> tuple[str, ...]:
        plain = language_of(language).voice
        variants = ("f2", "m3", "f4", "m7", "f1", "m1", "f3")  # they differ in pitch and timbre
        return (plain, *(f"{plain}+{variant}" for variant in variants))

    def speak(self, text: str, voice: str, language: str) -> Sound:
        samples, rate, timings = speak(normalize(text, language).text, voice)
        return Sound(samples=samples, sample_rate=rate, timings=timings)


def scale_formants(samples: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """Returns samples (N,) that are played `factor` times faster: (N / factor,), at the same rate.

    It multiplies formants, pitch and tempo by the factor, so that one speaker sounds like another with a vocal tract of
    1 / factor of the length; the engine speaks `factor` times slower to keep the tempo.
    """
    return resample(samples, round(rate * factor), rate)


ESPEAK = Espeak()
ENGINES: tuple[Engine, ...] = (Flite(), Pico(), ESPEAK)
"""All engines, the most intelligible first (docs/corpus.md has the measured character error rates of English)."""


def choose_engine(language: str, wanted: str, count: int) -> Engine:
    """Returns the engine that speaks `count` voices of a language.

    Args:
        language: Language of the sentences.
        wanted: `corpus.engine`; `auto` is the first of `ENGINES` that is installed and has that many voices. An engine
            that has no voice of the language is replaced by espeak-ng.
        count: Number of voices.

    Raises:
        CorpusError: the engine is not installed, or has fewer voices.
    """
    capable = [engine for engine in ENGINES if engine.voices(language)]
    if wanted != AUTO:
        capable = [engine for engine in capable if engine.name == wanted] or [ESPEAK]
    installed = [engine for engine in capable if engine.version() is not None]
    if not installed:
        raise CorpusError(
            f"corpus.engine is {wanted}, but {capable[0].name} is not installed; install it ({capable[0].install}), or "
            f"set corpus.engine to {AUTO}"
        )
    for engine in installed:
        if len(engine.voices(language)) >= count:
            return engine
    most = max(installed, key=lambda engine: len(engine.voices(language)))
    raise CorpusError(
        f"{count} voices of language {language!r} are wanted, but {most.name} has {len(most.voices(language))}; lower "
        "it in corpus.generated_voices"
    )


def log_choice(language: str, wanted: str, engine: Engine) -> None:
    """Logs which engine speaks a language, and with `auto` which better one is not installed."""
    logger.info("%s: spoken by %s %s", language, engine.name, engine.version())
    better = [
        f"{other.name} ({other.install})"
        for other in ENGINES[: ENGINES.index(engine)]
        if other.voices(language) and other.version() is None
    ]
    if wanted == AUTO and better:
        logger.warning("%s: spoken by %s; better if installed: %s", language, engine.name, " or ".join(better))


@cache
def _flite_version(program: str | None) -> str | None:
    """Returns the version that the program states (`2.2-current`), or `None` if there is no program."""
    if program is None:
        return None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=FLITE_SECONDS, check=False)
    found = re.search(r"version: flite-(\S+)", done.stdout + done.stderr)
    return found.group(1) if found else "of unknown version"


@cache
def _pico_version() -> str | None:
    """Returns the version of `ttspico`, or `None` if it is not installed or does not find its voices."""
    try:
        from ttspico import TtsEngine

        TtsEngine("en-US")
    except (ImportError, RuntimeError):
        return None
    return importlib.metadata.version("ttspico")
