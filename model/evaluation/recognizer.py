"""Character error rate by an offline recogniser (pocketsphinx with the English model that it carries)."""

from __future__ import annotations

import importlib.util
import re
import threading
import unicodedata
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from model.errors import MyXTTSError

SAMPLE_RATE = 16000
STATES_PER_FRAME = 3000
"""Bound of the search. Unbounded it takes a third longer to hear the same."""
LANGUAGES = ("en",)
"""What it understands: the language before any region."""


class RecognizerError(MyXTTSError):
    """The recogniser cannot be used; the message names the cure."""


def understands(language: str) -> bool:
    """Whether the recogniser has a model of this language (`en`, `en-us`, ...)."""
    return re.split("[-_]", language)[0] in LANGUAGES


def letters(text: str) -> str:
    """What is compared: lower-case letters and single spaces. Accents, marks and apostrophes count for nothing."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("'", "").replace("’", ""))
    return " ".join(re.sub(r"[^a-z ]+", " ", re.sub(r"[̀-ͯ]", "", plain)).split())


def character_error(text: str, transcript: str) -> float:
    """Edits per character of the text, 0 = understood; above 1 where more was heard than said.

    Raises:
        ValueError: the text has no letters.
    """
    import jiwer

    wanted = letters(text)
    if not wanted:
        raise ValueError(f"{text!r} has no letters to recognise")
    return float(jiwer.cer(wanted, letters(transcript)))


def transcribe(samples: np.ndarray) -> str:
    """What the recogniser hears; the same for the same samples, whatever was heard before.

    Args:
        samples: (N,) in [-1, 1] at 16 kHz.
    """
    decoder = _decoder()
    decoder.reinit_feat()  # forgets the running mean of the utterance before
    decoder.start_utt()
    pcm = np.clip(np.round(samples * 32767.0), -32768, 32767).astype("<i2")
    decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


class Recognizer:
    """Transcribes in other threads (the decoder lets go of the interpreter) while the caller goes on; a context.

    Raises:
        RecognizerError: pocketsphinx is not installed.
    """

    def __init__(self, workers: int) -> None:
        if importlib.util.find_spec("pocketsphinx") is None or importlib.util.find_spec("jiwer") is None:
            raise RecognizerError(
                "the recogniser is not installed: `pip install 'myxtts[evaluate]'`, or set evaluation.recognizer: none"
            )
        self._pool = ThreadPoolExecutor(workers, "recognizer")

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=kind is not None)

    def submit(self, samples: np.ndarray) -> Future[str]:
        """As `transcribe`, later."""
        return self._pool.submit(transcribe, samples)


_of_thread = threading.local()


def _decoder():
    """This thread's decoder; loading its language model takes a while."""
    if not hasattr(_of_thread, "decoder"):
        from pocketsphinx import Decoder

        _of_thread.decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", maxhmmpf=STATES_PER_FRAME)
    return _of_thread.decoder
