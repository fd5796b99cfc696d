"""Character error rate by an offline speech recognizer (pocketsphinx with its bundled English model)."""

from __future__ import annotations

import importlib.util
import re
import threading
import unicodedata
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from model.errors import MyXTTSError

if TYPE_CHECKING:
    from pocketsphinx import Decoder

SAMPLE_RATE = 16000
STATES_PER_FRAME = 3000
"""Beam of the search; without it, recognition takes a third longer and gives the same transcripts."""
LANGUAGES = ("en",)
"""Languages of the acoustic model, without region."""


class RecognizerError(MyXTTSError):
    """The recognizer cannot be used; the message names the fix."""


def supports(language: str) -> bool:
    """Returns whether the recognizer has a model of a language (`en`, `en-us`, ...)."""
    return re.split("[-_]", language)[0] in LANGUAGES


def letters(text: str) -> str:
    """Returns the part of a text that is compared: lower-case letters a to z and single spaces.

    Accents, punctuation and apostrophes are removed.
    """
    plain = unicodedata.normalize("NFKD", text.lower().replace("'", "").replace("’", ""))
    return " ".join(re.sub(r"[^a-z ]+", " ", re.sub(r"[̀-ͯ]", "", plain)).split())


def character_error(text: str, transcript: str) -> float:
    """Returns the character error rate: edits per character of the text; 0 is perfect, insertions can exceed 1.

    Raises:
        ValueError: the text has no letters.
    """
    import jiwer

    reference = letters(text)
    if not reference:
        raise ValueError(f"{text!r} has no letters to recognize")
    return float(jiwer.cer(reference, letters(transcript)))


def transcribe(samples: np.ndarray) -> str:
    """Transcribes speech. The result depends on the samples only, not on earlier calls.

    Args:
        samples: (N,) in [-1, 1] at 16 kHz.
    """
    decoder = _decoder()
    decoder.reinit_feat()  # resets the running cepstral mean of the previous utterance
    decoder.start_utt()
    pcm = np.clip(np.round(samples * 32767.0), -32768, 32767).astype("<i2")
    decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


class Recognizer:
    """Context manager that transcribes in background threads; the decoder releases the interpreter lock.

    Raises:
        RecognizerError: pocketsphinx or jiwer is not installed.
    """

    def __init__(self, workers: int) -> None:
        if importlib.util.find_spec("pocketsphinx") is None or importlib.util.find_spec("jiwer") is None:
            raise RecognizerError(
                "the recognizer is not installed: `pip install 'myxtts[evaluate]'`, or set evaluation.recognizer: none"
            )
        self._pool = ThreadPoolExecutor(workers, "recognizer")

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=kind is not None)

    def submit(self, samples: np.ndarray) -> Future[str]:
        """Schedules `transcribe` and returns its future."""
        return self._pool.submit(transcribe, samples)


_of_thread = threading.local()


def _decoder() -> Decoder:
    """Returns the decoder of the current thread; loading its language model takes a while."""
    if not hasattr(_of_thread, "decoder"):
        from pocketsphinx import Decoder

        _of_thread.decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", maxhmmpf=STATES_PER_FRAME)
    return _of_thread.decoder
