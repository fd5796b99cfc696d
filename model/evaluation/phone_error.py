"""Phone error rate of speech in any language, by recognizers that are trained on the corpus of the evaluation.

Voices of one evaluation set are compared by the same recognizer, since it is trained on recordings alone.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import zip_longest

import numpy as np

from model.evaluation.metrics import Metric, not_applicable
from model.evaluation.phones import PhoneRecognizer
from model.features.store import FeatureStore

MIN_SECONDS = 60.0
"""Speech in a language below which it has no phone error rate: with less, the rate hardly depends on intelligibility
(`benchmarks/phone_error.py --seconds`)."""
MAX_SECONDS = 900.0
"""Speech in a language that its recognizer is trained on at most, which takes two seconds."""


class PhoneErrors:
    """Phone error rates by one recognizer per language, trained when a language is first met.

    Args:
        store: Features, whose training clips the recognizers are trained on.
        evaluated: Positions of the clips of unseen sentences. Their texts are left out of training, as the recognizer
            would know the recordings; their speakers come first.
    """

    def __init__(self, store: FeatureStore, evaluated: Collection[int]) -> None:
        self.store = store
        self._texts = {store.clips[position].text for position in evaluated}
        self._speakers = {store.clips[position].speaker for position in evaluated}
        self._recognizers: dict[str, PhoneRecognizer | str] = {}

    def score(self, mel: np.ndarray, text: np.ndarray, language: str) -> Metric:
        """Returns the phone error rate of speech, or why it does not apply.

        Args:
            mel: Log-mel (S, M).
            text: Symbols (T,) of its text.
            language: Its language.
        """
        if language not in self._recognizers:
            self._recognizers[language] = self._train(language)
        recognizer = self._recognizers[language]
        if isinstance(recognizer, str):
            return not_applicable(recognizer)
        rate = recognizer.errors(mel, text)
        return not_applicable("the text has no phones") if rate is None else Metric(rate)

    def _train(self, language: str) -> PhoneRecognizer | str:
        """Returns the recognizer of a language, or why it has none."""
        positions, seconds = self._choose(language)
        if seconds < MIN_SECONDS:
            return (
                f"{seconds:.0f} s of training recordings in {language} are too few to train a phone recognizer, which "
                f"needs {MIN_SECONDS:.0f} s"
            )
        clips = [self.store.clip(position) for position in positions]
        return PhoneRecognizer.train([(clip.mel, clip.ids[:, 0]) for clip in clips])

    def _choose(self, language: str) -> tuple[list[int], float]:
        """Returns training clips of a language, of each speaker in turn up to the limit, and their seconds."""
        queues: dict[str, list[int]] = {}
        for position in self.store.split("train"):
            clip = self.store.clips[position]
            if clip.language == language and clip.text not in self._texts:
                queues.setdefault(clip.speaker, []).append(position)
        chosen: list[int] = []
        seconds = 0.0
        for speakers in (queues.keys() & self._speakers, queues.keys() - self._speakers):
            for turn in zip_longest(*(queues[speaker] for speaker in sorted(speakers))):
                for position in turn:
                    if position is not None and seconds < MAX_SECONDS:
                        chosen.append(position)
                        seconds += self.store.clips[position].seconds
        return chosen, seconds
