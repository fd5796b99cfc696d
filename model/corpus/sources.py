"""Output of the readers of corpus formats: utterances to ingest, and problems of rows without an utterance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from model.audio.io import AudioError, AudioNote
from model.corpus.problems import Problem

Timings = list[tuple[str, float, float]]
"""(phone, start, end) in seconds."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Audio of an utterance.

    Attributes:
        samples: (N,) float32 mono.
        sample_rate: In Hz.
        timings: Times of the phones, if the synthesizer reports them.
        notes: Defects of the file that were corrected on reading.
    """

    samples: np.ndarray
    sample_rate: int
    timings: Timings | None = None
    notes: tuple[AudioNote, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A clip before its audio is read or synthesized.

    Attributes:
        id, text, language, speaker: As in the manifest.
        origin: Recording or voice, for messages.
        record: Reads or synthesizes the audio. May raise `AudioError`.
        source: Name of the source in a mixed corpus, else empty.
    """

    id: str
    text: str
    language: str
    speaker: str
    origin: str
    record: Callable[[], Sound]
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """All utterances of a corpus.

    Attributes:
        utterances: One per clip.
        problems: Problems of rows without an utterance.
        engines: Name and version of the synthesizer of each language of a generated corpus.
        names: Original name of a clip by id, where it is not a usable id.
    """

    utterances: list[Utterance]
    problems: list[Problem] = field(default_factory=list)
    engines: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def audio_reason(error: AudioError) -> str:
    """Returns the kind of problem of an unreadable recording."""
    if not error.path.is_file():
        return "missing_recording"
    if error.path.stat().st_size == 0 or "zero length" in error.reason:
        return "zero_length"
    return "truncated" if "truncated" in error.reason else "unreadable"
