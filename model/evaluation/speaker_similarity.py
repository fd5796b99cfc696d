"""Speaker similarity: whether synthesized speech sounds like its speaker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from model.evaluation.metrics import Metric, not_applicable, similarity
from model.features.store import FeatureStore
from model.speaker_encoder import Resemblyzer, centroid

MAX_CLIPS = 8
"""Recordings per speaker that are embedded where the features hold embeddings of another encoder."""
ONE_SPEAKER = "there is no other speaker to compare with"


class SpeakerSimilarity:
    """Compares speech with the recordings of its speaker by Resemblyzer embeddings.

    The encoder is the same for all voices, whichever one they were conditioned on, so that voices are comparable.

    Args:
        store: Features; their speaker embeddings are used where they are Resemblyzer's.
        read_recording: Returns the samples (N,) of the clip at a position, at the sample rate of the features.
        speakers: Candidate speakers.
    """

    def __init__(
        self, store: FeatureStore, read_recording: Callable[[int], np.ndarray], speakers: Iterable[str]
    ) -> None:
        self.encoder = Resemblyzer.load()
        self.store, self.speakers = store, sorted(set(speakers))
        self._read_recording = read_recording
        self._embeddings: dict[int, np.ndarray] = {}
        features = store.index.features
        self._use_stored = features.speaker_encoder_model == "resemblyzer" and not features.speaker_encoder_weights

    def compare(self, clips: Sequence[np.ndarray], speaker: str, position: int) -> list[dict[str, Metric]]:
        """Returns `speaker_similarity` and `speaker_identified` (1 where no other speaker is nearer) of each clip.

        Args:
            clips: Samples (N,) of each.
            speaker: The right speaker.
            position: Clip with the same text, which is left out of the speaker's embedding.
        """
        names = [speaker, *(name for name in self.speakers if name != speaker)]
        centroids = np.stack([self._centroid(name, position) for name in names])
        results = []
        for embedding in self._embed(clips):
            identified = not_applicable(ONE_SPEAKER)
            if len(names) > 1:
                identified = Metric(float((centroids @ embedding).argmax() == 0))
            results.append(
                {"speaker_similarity": similarity(embedding, centroids[0]), "speaker_identified": identified}
            )
        return results

    def _centroid(self, speaker: str, without: int) -> np.ndarray:
        """Returns the embedding of a speaker without that of one clip."""
        if self._use_stored:
            return self.store.speaker_centroid(speaker, without)
        clips = self.store.clips_of_speaker[speaker]
        chosen = ([position for position in clips if position != without] or clips)[:MAX_CLIPS]
        for position in chosen:
            if position not in self._embeddings:
                self._embeddings[position] = self._embed([self._read_recording(position)])[0]
        return centroid(np.stack([self._embeddings[position] for position in chosen]))

    def _embed(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        return self.encoder.embed_many(clips, self.store.audio.sample_rate)
