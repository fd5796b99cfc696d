"""Division of long recordings at pauses that match the punctuation of their text."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from model.audio.loudness import decibels, frame_powers
from model.audio.trimming import FRAME_SECONDS
from model.corpus.pairing import pair_in_order
from model.text.identify import spoken_length

MIN_PAUSE = 0.25
"""Shortest silence, in seconds, that may be the end of a clause."""
MIN_PIECE = 1.0
"""Shortest piece in seconds."""
MAX_DISTANCE = 0.9
"""Largest distance, in seconds of speech, of a pause from its expected position."""
MAX_SPEED_DIFFERENCE = 0.25
"""Largest relative difference in speed of a piece from the whole: a larger one means that its text is wrong."""
_MISSED_CLAUSE, _MISSED_PAUSE = 0.5, 0.15
_SILENCE_LEVEL = 0.35
"""Upper limit of silence between the quietest (0) and the loudest (1) frames, in dB."""
_CLAUSE = re.compile(r"[^.!?;:…,。！？；：，、،؛؟—]+[.!?;:…,。！？；：，、،؛؟—]*[\"'»”)\]]*\s*")


@dataclass(frozen=True)
class Piece:
    """Part of a recording: its first and one-past-last sample, and its text."""

    start: int
    end: int
    text: str


def divide(samples: np.ndarray, sample_rate: int, text: str, longest: float) -> list[Piece]:
    """Divides a recording into pieces of at most `longest` seconds.

    Pauses are matched in order with the ends of clauses, whose positions are expected in proportion to their letters. A
    division is accepted only if all pieces are spoken about as fast as the whole.

    Args:
        samples: (N,).
        sample_rate: In Hz.
        text: Transcript of the whole recording.
        longest: In seconds.

    Returns:
        The pieces in order, or none if no division is acceptable.
    """
    clauses = [match[0] for match in _CLAUSE.finditer(text)]
    pauses, voiced = _pauses(samples, sample_rate)
    if len(clauses) < 2 or not pauses:
        return []
    lengths = np.cumsum([spoken_length(clause.strip()) for clause in clauses])
    total = voiced[-1]
    expected = lengths[:-1] / lengths[-1] * total
    found = np.array([voiced[middle] for middle in pauses])
    cuts = [(clause, pauses[pause]) for clause, pause in _match(expected, found)]

    pieces: list[Piece] = []
    first, start = 0, 0
    size = int(FRAME_SECONDS * sample_rate)
    ends = [(clause + 1, pause * size) for clause, pause in cuts] + [(len(clauses), len(samples))]
    for index, (last, end) in enumerate(ends):
        following = ends[index + 1][1] if index + 1 < len(ends) else None
        if following is not None and (following - start) / sample_rate <= longest:
            continue  # the piece can extend to the next pause
        pieces.append(Piece(start, end, "".join(clauses[first:last]).strip()))
        first, start = last, end
    return pieces if _acceptable(pieces, voiced, size, lengths[-1] / total, sample_rate, longest) else []


def _pauses(samples: np.ndarray, sample_rate: int) -> tuple[list[int], np.ndarray]:
    """Returns the middle frames of the pauses, and the seconds of speech before each frame and in total."""
    levels = decibels(frame_powers(samples, int(FRAME_SECONDS * sample_rate)))
    quietest, loudest = np.percentile(levels, (5, 95))
    is_speech = levels > quietest + _SILENCE_LEVEL * (loudest - quietest)
    voiced = np.concatenate([[0.0], np.cumsum(is_speech) * FRAME_SECONDS])
    edges = np.flatnonzero(np.diff(np.concatenate([[True], is_speech, [True]]).astype(int)))
    spans = zip(edges[::2], edges[1::2], strict=True)
    inner = [(a, b) for a, b in spans if a > 0 and b < len(is_speech) and (b - a) * FRAME_SECONDS >= MIN_PAUSE]
    return [int((a + b) // 2) for a, b in inner], voiced


def _match(expected: np.ndarray, found: np.ndarray) -> list[tuple[int, int]]:
    """Returns (clause, pause) pairs of the best match in order; clauses and pauses may be unmatched."""
    distance = np.abs(expected[:, None] - found[None, :])
    distance[distance > MAX_DISTANCE] = np.inf
    return pair_in_order(-distance, -_MISSED_CLAUSE, -_MISSED_PAUSE)


def _acceptable(
    pieces: list[Piece], voiced: np.ndarray, size: int, speed: float, sample_rate: int, longest: float
) -> bool:
    """Returns whether all pieces have a usable length and are spoken about as fast as the whole."""
    for piece in pieces:
        seconds = (piece.end - piece.start) / sample_rate
        speech = voiced[min(piece.end // size, len(voiced) - 1)] - voiced[piece.start // size]
        if not MIN_PIECE <= seconds <= longest or speech <= 0:
            return False
        if abs(spoken_length(piece.text) / speech / speed - 1) > MAX_SPEED_DIFFERENCE:
            return False
    return len(pieces) > 1
