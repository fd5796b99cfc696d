"""Chooses the sentences that a voice is evaluated on, by the hashes of their texts and its training sentences."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from model.config.evaluation import EvaluationConfig
from model.evaluation import recognizer
from model.evaluation.results import TRAINING, UNSEEN, SentenceResult
from model.evaluation.texts import SpokenText, further_texts
from model.features.store import FeatureStore
from model.text import sentence_hash
from model.vocoder import Vocoder

if TYPE_CHECKING:
    from model.synthesis import Speech

PRIORITY = {"test": 0, "validation": 1, "train": 2}
"""Split -> its place in the order of unseen sentences. Test clips precede validation clips, which may have selected the
checkpoint."""


class EvaluatedVoice(Protocol):
    """Interface of the voices that can be evaluated; `model.synthesis.Synthesizer` implements it."""

    @property
    def speakers(self) -> list[str]: ...

    @property
    def languages(self) -> list[str]: ...

    @property
    def training_sentences(self) -> frozenset[str] | None: ...

    @property
    def vocoder(self) -> Vocoder: ...

    def synthesize(
        self, text: str, language: str = "", speaker: str = "", *, reference: Path | None = None
    ) -> Speech: ...

    def align(self, ids: np.ndarray, mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def choose(
    store: FeatureStore, voice: EvaluatedVoice, limits: EvaluationConfig, exclude: frozenset[str] = frozenset()
) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """Chooses clips of unseen sentences and of training sentences, each speaker in turn, up to the limits.

    A sentence is unseen if the voice was not trained on it, whatever recording of it or split of this corpus it is in.
    The order is that of the sentences' hashes, so the choice depends on nothing but the texts.

    Returns:
        (position, part) of the chosen clips, and reason -> number of clips that are not used.
    """
    left_out: Counter[str] = Counter()
    seen = known_sentences(store, voice)
    queues: dict[str, dict[tuple[str, str], list[tuple[int, str, int]]]] = {UNSEEN: {}, TRAINING: {}}
    for position, clip in enumerate(store.clips):
        sentence = sentence_hash(clip.text)
        if clip.language not in voice.languages:
            left_out[f"language {clip.language}, which the voice does not speak"] += 1
        elif sentence in exclude and sentence not in seen:
            left_out["a voice that it is compared with was trained on the sentence"] += 1
        elif sentence in seen and clip.split != "train":
            left_out["held out here, but the voice was trained on the sentence"] += 1
        else:
            queue = queues[TRAINING if sentence in seen else UNSEEN].setdefault((clip.language, clip.speaker), [])
            queue.append((PRIORITY[clip.split], sentence, position))
    chosen: list[tuple[int, str]] = []
    for part, most in ((UNSEEN, limits.max_clips), (TRAINING, limits.max_training_clips)):
        ordered = (sorted(queue) for _, queue in sorted(queues[part].items()))
        in_turn = [entry[-1] for turn in zip_longest(*ordered) for entry in turn if entry is not None]
        taken: list[int] = []
        seconds = 0.0
        for position in in_turn[:most]:
            if seconds >= limits.max_seconds:
                break
            taken.append(position)
            seconds += store.clips[position].seconds
        chosen += [(position, part) for position in sorted(taken)]
    return chosen, dict(left_out)


def known_sentences(store: FeatureStore, voice: EvaluatedVoice) -> frozenset[str]:
    """Returns the sentences that a voice was trained on; if they are not recorded, those of the training split."""
    if voice.training_sentences is not None:
        return voice.training_sentences
    return frozenset(sentence_hash(store.clips[position].text) for position in store.split("train"))


def choose_texts(
    store: FeatureStore,
    voice: EvaluatedVoice,
    chosen: Sequence[tuple[int, str]],
    limits: EvaluationConfig,
    seen: frozenset[str],
) -> list[tuple[str, str, str]]:
    """Returns texts without recordings as (text, language, speaker): `texts`, or more where few clips are held out.

    The trained speakers of languages that the recognizer supports speak them in turn.

    Args:
        store: Features of the corpus.
        voice: The voice.
        chosen: The chosen clips, as `choose` returns them.
        limits: Numbers of texts and sentences.
        seen: Hashes of the sentences that this voice, or one that it is compared with, was trained on.
    """
    unseen = [store.clips[position] for position, part in chosen if part == UNSEEN]
    lacking = min(limits.min_sentences, limits.max_clips) - sum(recognizer.supports(clip.language) for clip in unseen)
    speakers = [
        (language, name)
        for name, language in store.speaker_languages.items()
        if name in voice.speakers and language in voice.languages and recognizer.supports(language)
    ]
    count = max(limits.texts, lacking)
    texts = further_texts(count, (clip.text for clip in store.clips), seen) if count and speakers else []
    return [(text, *speakers[number % len(speakers)]) for number, text in enumerate(texts)]


def examination(sentences: Sequence[SentenceResult], texts: Sequence[SpokenText]) -> dict[str, Any]:
    """Returns the size and the hash (16 hex digits) of the set of unseen sentences and texts.

    Evaluations with equal hashes are of the same sentences by the same speakers.
    """
    clips = sorted(
        (sentence_hash(each.clip.text), each.clip.language, each.clip.speaker)
        for each in sentences
        if each.part == UNSEEN
    )
    digest = hashlib.sha256(
        json.dumps([clips, sorted(sentence_hash(text.text) for text in texts)]).encode()
    ).hexdigest()
    return {"hash": digest[:16], "clips": len(clips), "texts": len(texts)}
