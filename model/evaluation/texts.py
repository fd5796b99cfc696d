"""Texts without recordings, which measure the intelligibility of a voice if few recordings are held out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation import recognizer
from model.evaluation.metrics import Metric
from model.text import sentence_hash
from model.text.normalize import normalize


@dataclass(kw_only=True)
class SpokenText:
    """A text that the voice speaks and that has no recording.

    Attributes:
        text: The text.
        language: Its language.
        speaker: Speaker of the voice.
        samples: Synthesized samples (N,) at the sample rate of the features.
        dnsmos, phone_error: Predicted quality and phone error rate of the samples.
        transcript: Transcript of the recognizer.
        file: File of the samples, relative to the evaluation's folder.
    """

    text: str
    language: str
    speaker: str
    samples: np.ndarray
    dnsmos: Metric
    phone_error: Metric
    transcript: str = ""
    file: str = ""

    @property
    def character_error(self) -> Metric:
        """Character error rate of the transcript."""
        return Metric(recognizer.character_error(normalize(self.text, self.language).text, self.transcript))

    def as_dict(self) -> dict[str, Any]:
        """Returns text, transcript and metric as plain data, without audio."""
        return {
            "language": self.language,
            "speaker": self.speaker,
            "text": self.text,
            "sentence": sentence_hash(self.text),
            "audio": {"synthesised": self.file},
            "transcript": self.transcript,
            "character_error": self.character_error.as_dict(),
            "phone_error": self.phone_error.as_dict(),
            "dnsmos": self.dnsmos.as_dict(),
        }


def further_texts(count: int, known: Iterable[str], seen: Iterable[str] = (), language: str = "en") -> list[str]:
    """Returns the first texts of the shipped list of a language that the corpus does not contain.

    The list has no sentence of the generated corpus, so that a base voice has not been trained on them either.

    Args:
        count: Number of texts; fewer where the list ends.
        known: Texts of the corpus.
        seen: Hashes of sentences that a voice was trained on.
        language: Language with a list `texts_<language>.txt`.
    """
    left_out = {sentence_hash(text) for text in known}.union(seen)
    lines = (Path(__file__).parent / f"texts_{language}.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and sentence_hash(line) not in left_out][:count]
