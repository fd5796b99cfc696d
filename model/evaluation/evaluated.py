"""An evaluated sentence, and what many of them amount to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.evaluation.metrics import Measure, mean_of, not_applicable
from model.features.index import IndexedClip

UNSEEN, TRAINING = PARTS = ("unseen", "training")
RECORDING, COPY, SYNTHESISED = KINDS = ("recording", "copy_synthesis", "synthesised")


@dataclass(eq=False)
class Evaluated:
    """One sentence: what was heard of it and what was measured.

    Attributes:
        clip: The recorded sentence.
        part: `training` or `unseen`.
        speech: What the voice said (`model.synthesis.Speech`).
        sounds: Kind -> (N,) samples at the rate of the features.
        mels: Kind -> (S, M) log-mel of these samples.
        soft: (S, T) soft alignment of the recording.
        transcripts: Kind -> what the recogniser heard.
        measures: Name -> kind -> measure.
    """

    clip: IndexedClip
    part: str
    speech: Any
    sounds: dict[str, np.ndarray] = field(default_factory=dict)
    mels: dict[str, np.ndarray] = field(default_factory=dict)
    soft: np.ndarray | None = None
    transcripts: dict[str, str] = field(default_factory=dict)
    measures: dict[str, dict[str, Measure]] = field(default_factory=dict)


def summarise(items: Iterable[Evaluated]) -> dict[str, dict[str, dict[str, Any]]]:
    """Name -> kind -> mean over sentences."""
    items = list(items)
    names = {(name, kind) for item in items for name, kinds in item.measures.items() for kind in kinds}
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for name, kind in sorted(names):
        measures = [item.measures[name][kind] for item in items if kind in item.measures.get(name, {})]
        summary.setdefault(name, {})[kind] = mean_of(measures).as_dict()
    return summary


def gate(items: list[Evaluated], max_recording_error: float) -> dict[str, dict[str, Any]]:
    """Returns the metrics that decide on a promotion, on unseen sentences (on all where none are held out).

    Args:
        items: Evaluated sentences.
        max_recording_error: `evaluation.max_recording_error`.
    """
    return {
        "mel_cepstral_distortion": mean_of(
            item.measures["mel_cepstral_distortion"][SYNTHESISED] for item in items
        ).as_dict(),
        "character_error_increase": _character_error_increase(items, max_recording_error).as_dict(),
        "alignment_monotonicity": mean_of(
            item.measures["alignment_monotonicity"][RECORDING] for item in items
        ).as_dict(),
    }


def _character_error_increase(items: list[Evaluated], max_recording_error: float) -> Measure:
    """Returns the mean increase over the recordings, unless the recognizer does not even understand those."""
    recordings = mean_of(item.measures["character_error"][RECORDING] for item in items).value
    if recordings is not None and recordings > max_recording_error:
        return not_applicable(
            f"the recognizer does not understand the recordings: their own character error rate is {recordings:.3f}, "
            f"above evaluation.max_recording_error ({max_recording_error:g})"
        )
    errors = []
    for item in items:
        own = item.measures["character_error"]
        if own[SYNTHESISED].value is None or own[RECORDING].value is None:
            errors.append(own[SYNTHESISED])
        else:
            errors.append(Measure(own[SYNTHESISED].value - own[RECORDING].value))
    return mean_of(errors)


def by_group(items: list[Evaluated]) -> list[dict[str, Any]]:
    """The mean measures of each language, speaker and part."""
    groups: dict[tuple[str, str, str], list[Evaluated]] = {}
    for item in items:
        groups.setdefault((item.clip.language, item.clip.speaker, item.part), []).append(item)
    return [
        {"language": language, "speaker": speaker, "part": part, "sentences": len(own), "measures": summarise(own)}
        for (language, speaker, part), own in sorted(groups.items())
    ]


def described(item: Evaluated) -> dict[str, Any]:
    """A sentence as plain data, without its sounds and pictures."""
    return {
        "id": item.clip.id,
        "part": item.part,
        "split": item.clip.split,
        "language": item.clip.language,
        "speaker": item.clip.speaker,
        "text": item.clip.text,
        "transcripts": item.transcripts,
        "measures": {
            name: {kind: measure.as_dict() for kind, measure in kinds.items()} for name, kinds in item.measures.items()
        },
    }
