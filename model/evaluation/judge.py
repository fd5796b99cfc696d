"""Whether speech sounds like its speaker, by one encoder for all voices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from model.evaluation.metrics import Measure, not_applicable, similarity
from model.features.store import FeatureStore
from model.speaker_encoder import Resemblyzer, centroid

MOST_CLIPS = 8
"""Recordings that a speaker is known by where the features hold another encoder's vectors."""


ONE_SPEAKER = "a single speaker cannot be taken for another"


class SpeakerJudge:
    """Resemblyzer, whatever encoder the voice was conditioned on.

    One judge makes voices comparable, and it is independent where a voice was trained with another encoder or its own.

    Args:
        store: Features; their speaker vectors serve where they are the judge's.
        recording: Position of a clip -> (N,) samples at the rate of the features.
        speakers: Among whom a speaker is to be told.
    """

    def __init__(self, store: FeatureStore, recording: Callable[[int], np.ndarray], speakers: Iterable[str]) -> None:
        self.encoder = Resemblyzer.load()
        self.store, self.speakers = store, sorted(set(speakers))
        self._recording = recording
        self._heard: dict[int, np.ndarray] = {}
        settings = store.index.features
        self._stored = settings.speaker_encoder_model == "resemblyzer" and not settings.speaker_encoder_weights

    def compare(self, sounds: Sequence[np.ndarray], speaker: str, position: int) -> list[dict[str, Measure]]:
        """For each sound `speaker_similarity`, and `speaker_identified`: 1 where no other speaker is nearer.

        Args:
            sounds: (N,) samples each.
            speaker: Who should be heard.
            position: The clip they are said after, which the speaker is not known by.
        """
        names = [speaker, *(name for name in self.speakers if name != speaker)]
        known = np.stack([self._known(name, position) for name in names])
        found = []
        for vector in self._listen(sounds):
            nearest = Measure(float((known @ vector).argmax() == 0)) if len(names) > 1 else not_applicable(ONE_SPEAKER)
            found.append({"speaker_similarity": similarity(vector, known[0]), "speaker_identified": nearest})
        return found

    def _known(self, speaker: str, without: int) -> np.ndarray:
        if self._stored:
            return self.store.speaker_centroid(speaker, without)
        own = self.store.clips_of_speaker[speaker]
        heard = ([position for position in own if position != without] or own)[:MOST_CLIPS]
        for position in heard:
            if position not in self._heard:
                self._heard[position] = self._listen([self._recording(position)])[0]
        return centroid(np.stack([self._heard[position] for position in heard]))

    def _listen(self, sounds: Sequence[np.ndarray]) -> np.ndarray:
        return self.encoder.embed_many(sounds, self.store.audio.sample_rate)
