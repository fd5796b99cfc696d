"""What a reader of a corpus format gives to `ingest`: utterances to be recorded, and rows that are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from model.audio.io import AudioError, AudioNote
from model.corpus.problems import Problem

Timings = list[tuple[str, float, float]]
"""(phone, start, end) in seconds."""


@dataclass(frozen=True)
class Sound:
    """Samples (N,) float32 mono, their rate in Hz, the times of the phones where the speaker tells them, and what was
    put right when the file was read."""

    samples: np.ndarray
    sample_rate: int
    timings: Timings | None = None
    notes: tuple[AudioNote, ...] = ()


@dataclass(frozen=True)
class Utterance:
    """One clip to be.

    Attributes:
        id, text, language, speaker: As in the manifest.
        origin: Where it comes from, for messages: a row of a file, or a voice.
        record: Reads or speaks it. May raise `AudioError`.
        source: Name of the corpus in a mixed one, else empty.
    """

    id: str
    text: str
    language: str
    speaker: str
    origin: str
    record: Callable[[], Sound]
    source: str = ""


@dataclass(frozen=True)
class Source:
    """All utterances of a corpus.

    Attributes:
        utterances: One for each clip.
        problems: What was wrong with rows that gave none.
        engines: Language -> name and version of the engine that speaks it, if the corpus is generated.
        names: Clip id -> what the corpus names the clip by, where that is no usable id.
    """

    utterances: list[Utterance]
    problems: list[Problem] = field(default_factory=list)
    engines: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def audio_reason(error: AudioError) -> str:
    """Kind of problem behind an unreadable recording."""
    if not error.path.is_file():
        return "missing_recording"
    if error.path.stat().st_size == 0 or "zero length" in error.reason:
        return "zero_length"
    return "truncated" if "truncated" in error.reason else "unreadable"
