"""Over-long recordings: divided at pauses that the punctuation of their text explains, or left whole. Never cut."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from model.audio.trimming import FRAME_SECONDS
from model.corpus.pairing import pair_in_order
from model.text.identify import spoken_length

LEAST_PAUSE = 0.25
"""Seconds of silence that may be the end of a clause."""
LEAST_PIECE = 1.0
"""Seconds of the shortest piece."""
FURTHEST = 0.9
"""Seconds between a pause and where the text lets expect it, of those that are still believed to be one."""
EVEN_SPEED = 0.25
"""Share by which a piece may be spoken faster or slower than the whole: more means that its text is another's."""
_MISSED_CLAUSE, _MISSED_PAUSE = 0.5, 0.15
_QUIET = 0.35
"""Of the way from the quietest to the loudest frames, in dB: below is silence."""
_CLAUSE = re.compile(r"[^.!?;:…,。！？；：，、،؛؟—]+[.!?;:…,。！？；：，、،؛؟—]*[\"'»”)\]]*\s*")


@dataclass(frozen=True)
class Piece:
    """Part of a recording: its first and one-past-last sample, and what is said there."""

    start: int
    end: int
    text: str


def divide(samples: np.ndarray, sample_rate: int, text: str, longest: float) -> list[Piece]:
    """Divide a recording into pieces of at most `longest` seconds.

    The clauses of the text are matched with the pauses of the recording in order, each expected where its share of the
    letters lets it. A division is believed only if every piece is then spoken about as fast as the whole.

    Args:
        samples: (N,).
        sample_rate: In Hz.
        text: What is said.
        longest: Seconds.

    Returns:
        The pieces in order; none where no division is believed: the recording is to be set aside as it is.
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
            continue  # the next pause is near enough: the piece grows
        pieces.append(Piece(start, end, "".join(clauses[first:last]).strip()))
        first, start = last, end
    return pieces if _believed(pieces, voiced, size, lengths[-1] / total, sample_rate, longest) else []


def _pauses(samples: np.ndarray, sample_rate: int) -> tuple[list[int], np.ndarray]:
    """Middle frames of the pauses, and the seconds of speech before each frame (the last value is all of it)."""
    size = int(FRAME_SECONDS * sample_rate)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    loudness = 10 * np.log10(np.maximum(np.square(frames, dtype=np.float64).mean(axis=1), 1e-10))
    quietest, loudest = np.percentile(loudness, (5, 95))
    speaks = loudness > quietest + _QUIET * (loudest - quietest)
    voiced = np.concatenate([[0.0], np.cumsum(speaks) * FRAME_SECONDS])
    edges = np.flatnonzero(np.diff(np.concatenate([[True], speaks, [True]]).astype(int)))
    spans = zip(edges[::2], edges[1::2], strict=True)
    inner = [(a, b) for a, b in spans if a > 0 and b < len(speaks) and (b - a) * FRAME_SECONDS >= LEAST_PAUSE]
    return [int((a + b) // 2) for a, b in inner], voiced


def _match(expected: np.ndarray, found: np.ndarray) -> list[tuple[int, int]]:
    """(clause, pause) pairs of the cheapest match in order; clauses and pauses may stay alone."""
    distance = np.abs(expected[:, None] - found[None, :])
    distance[distance > FURTHEST] = np.inf
    return pair_in_order(-distance, -_MISSED_CLAUSE, -_MISSED_PAUSE)


def _believed(
    pieces: list[Piece], voiced: np.ndarray, size: int, speed: float, sample_rate: int, longest: float
) -> bool:
    """Whether all pieces are of a usable length and spoken about as fast as the whole."""
    for piece in pieces:
        seconds = (piece.end - piece.start) / sample_rate
        speech = voiced[min(piece.end // size, len(voiced) - 1)] - voiced[piece.start // size]
        if not LEAST_PIECE <= seconds <= longest or speech <= 0:
            return False
        if abs(spoken_length(piece.text) / speech / speed - 1) > EVEN_SPEED:
            return False
    return len(pieces) > 1
