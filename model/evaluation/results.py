"""Results of single sentences, and their means over groups of sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model.evaluation.metrics import Metric, mean_of, not_applicable
from model.evaluation.texts import SpokenText
from model.features.index import IndexedClip
from model.text import sentence_hash

if TYPE_CHECKING:
    from model.synthesis import Speech

UNSEEN, TRAINING = PARTS = ("unseen", "training")
RECORDING, COPY, SYNTHESIZED = KINDS = ("recording", "copy_synthesis", "synthesised")
"""Kinds of audio, as spelled in `metrics.json` and in MLflow."""

MetricsByKind = dict[str, dict[str, Metric]]
"""Metric name -> kind of audio -> metric."""


@dataclass(eq=False, kw_only=True)
class SentenceResult:
    """Audio and metrics of one evaluated sentence.

    Attributes:
        clip: The recorded sentence.
        part: `training` or `unseen`.
        speech: Output of the voice.
        audio: Kind -> samples (N,) at the sample rate of the features.
        mels: Kind -> log-mel (S, M) of these samples.
        soft_alignment: Soft alignment (S, T) of the recording; None until it is computed.
        transcripts: Kind -> transcript of the recognizer.
        metrics: Metrics by name and kind.
        files: Kind -> file of the audio, relative to the evaluation's folder.
    """

    clip: IndexedClip
    part: str
    speech: Speech
    audio: dict[str, np.ndarray] = field(default_factory=dict)
    mels: dict[str, np.ndarray] = field(default_factory=dict)
    soft_alignment: np.ndarray | None = None
    transcripts: dict[str, str] = field(default_factory=dict)
    metrics: MetricsByKind = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns text, transcripts and metrics as plain data, without audio and spectrograms."""
        return {
            "id": self.clip.id,
            "part": self.part,
            "split": self.clip.split,
            "language": self.clip.language,
            "speaker": self.clip.speaker,
            "text": self.clip.text,
            "sentence": sentence_hash(self.clip.text),
            "transcripts": self.transcripts,
            "audio": self.files,
            "metrics": {
                name: {kind: metric.as_dict() for kind, metric in kinds.items()} for name, kinds in self.metrics.items()
            },
        }


def summarize(sentences: Iterable[SentenceResult]) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns metric name -> kind -> mean over sentences, as plain data."""
    sentences = list(sentences)
    names = {(name, kind) for sentence in sentences for name, kinds in sentence.metrics.items() for kind in kinds}
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for name, kind in sorted(names):
        metrics = [each.metrics[name][kind] for each in sentences if kind in each.metrics.get(name, {})]
        summary.setdefault(name, {})[kind] = mean_of(metrics).as_dict()
    return summary


def gate_metrics(
    sentences: list[SentenceResult], texts: list[SpokenText], max_recording_error: float
) -> dict[str, dict[str, Any]]:
    """Returns the means of the metrics that decide on a promotion, as plain data.

    Args:
        sentences: All sentences; the unseen ones count, or all where none is unseen.
        texts: Texts without recordings, which count for intelligibility.
        max_recording_error: Character error rate of the recordings above which that of the voice does not count.
    """
    unseen = [sentence for sentence in sentences if sentence.part == UNSEEN] or sentences
    increase = (
        _increase_with_texts(sentences, unseen, texts, max_recording_error)
        if texts
        else _mean_character_error_increase(unseen, max_recording_error)
    )
    return {
        "mel_cepstral_distortion": mean_of(
            sentence.metrics["mel_cepstral_distortion"][SYNTHESIZED] for sentence in unseen
        ).as_dict(),
        "character_error_increase": increase.as_dict(),
        "phone_error_increase": _phone_error_increase(unseen, understood=increase.value is not None).as_dict(),
        "alignment_monotonicity": mean_of(
            sentence.metrics["alignment_monotonicity"][RECORDING] for sentence in unseen
        ).as_dict(),
    }


def _increase_with_texts(
    sentences: list[SentenceResult], unseen: list[SentenceResult], texts: list[SpokenText], max_recording_error: float
) -> Metric:
    """Returns the mean character error rate of unseen sentences and texts, minus that of all evaluated recordings.

    How well the recognizer transcribes a recording does not depend on whether the voice was trained on it.
    """
    recordings = _recording_error(sentences, max_recording_error)
    if recordings.value is None:
        return recordings
    spoken = [sentence.metrics["character_error"][SYNTHESIZED] for sentence in unseen]
    synthesized = mean_of([*spoken, *(text.character_error for text in texts)]).value
    assert synthesized is not None  # texts always have an error rate
    return Metric(synthesized - recordings.value)


def _recording_error(sentences: list[SentenceResult], max_recording_error: float) -> Metric:
    """Returns the mean character error rate of recordings, or why it does not apply."""
    error = mean_of(sentence.metrics["character_error"][RECORDING] for sentence in sentences)
    if error.value is not None and error.value > max_recording_error:
        return not_applicable(
            f"the recognizer cannot transcribe the recordings: their own character error rate is {error.value:.3f}, "
            f"above evaluation.max_recording_error ({max_recording_error:g})"
        )
    return error


def _mean_character_error_increase(sentences: list[SentenceResult], max_recording_error: float) -> Metric:
    """Returns the mean increase, or why it does not apply: the recognizer cannot transcribe the recordings."""
    recordings = _recording_error(sentences, max_recording_error)
    if recordings.value is None:
        return recordings
    return mean_of(_increase("character_error", sentence) for sentence in sentences)


def _increase(metric: str, sentence: SentenceResult) -> Metric:
    """Returns an error rate of the synthesized sentence minus that of its recording."""
    errors = sentence.metrics[metric]
    synthesized, recorded = errors[SYNTHESIZED].value, errors[RECORDING].value
    if synthesized is None or recorded is None:
        return errors[SYNTHESIZED]
    return Metric(synthesized - recorded)


def _phone_error_increase(sentences: list[SentenceResult], *, understood: bool) -> Metric:
    """Returns the mean phone error rate above the recordings', in languages without character error rate.

    Args:
        sentences: The sentences.
        understood: Whether the character error rate counts in the languages that have one.
    """
    has_errors = {
        each.clip.language for each in sentences if each.metrics["character_error"][SYNTHESIZED].value is not None
    }
    if understood:
        sentences = [each for each in sentences if each.clip.language not in has_errors]
        if not sentences:
            return not_applicable("all sentences are in languages with a character error rate")
    return mean_of(_increase("phone_error", sentence) for sentence in sentences)


def by_group(sentences: list[SentenceResult]) -> list[dict[str, Any]]:
    """Returns the mean metrics of each language, speaker and part, as plain data."""
    groups: dict[tuple[str, str, str], list[SentenceResult]] = {}
    for sentence in sentences:
        key = (sentence.clip.language, sentence.clip.speaker, sentence.part)
        groups.setdefault(key, []).append(sentence)
    return [
        {
            "language": language,
            "speaker": speaker,
            "part": part,
            "sentences": len(members),
            "metrics": summarize(members),
        }
        for (language, speaker, part), members in sorted(groups.items())
    ]
