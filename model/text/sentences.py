"""Sentences of a text, so that a text of any length is spoken piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

LONGEST_PIECE = 500
"""Largest number of characters of a piece, which is synthesized as a whole. Clips of a corpus are rarely longer."""

_END = re.compile(r"[.!?…؟۔。！？।]+[\"'»”’)\]]*(?=\s)|[。！？]|\n\s*\n")
_NO_END = re.compile(r"(?:^|[\s(])(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|cf|No|bzw|ca|Nr|Hr|Fr)\.$")
"""An initial, a title or another abbreviation before a period."""
_PAUSE = re.compile(r"[,;:،؛，；：–—]\s*|\s+")


def split_sentences(text: str) -> list[str]:
    """Returns the sentences of a text with their punctuation, without those that are white space alone.

    Paragraphs end sentences, and so does the punctuation of any script; initials and common titles do not. A sentence
    longer than `LONGEST_PIECE` is divided at its last pause before that, or else between words.
    """
    sentences, start = [], 0
    for match in _END.finditer(text):
        candidate = text[start : match.end()]
        if _NO_END.search(candidate.rstrip()) and "\n" not in match.group():
            continue
        sentences.append(candidate)
        start = match.end()
    sentences.append(text[start:])
    return [piece for sentence in sentences if sentence.strip() for piece in _divided(sentence.strip())]


def join_sentences(sentences: Iterable[str]) -> Iterator[str]:
    """Yields consecutive sentences together, up to `LONGEST_PIECE` characters."""
    piece = ""
    for sentence in sentences:
        if piece and len(piece) + 1 + len(sentence) > LONGEST_PIECE:
            yield piece
            piece = ""
        piece = f"{piece} {sentence}" if piece else sentence
    if piece:
        yield piece


def _divided(sentence: str) -> Iterator[str]:
    """Yields a sentence, in several pieces if it is too long."""
    while len(sentence) > LONGEST_PIECE:
        pauses = list(_PAUSE.finditer(sentence, 1, LONGEST_PIECE))
        marked = [pause for pause in pauses if pause.group().strip()]
        cut = (marked or pauses)[-1].end() if pauses else LONGEST_PIECE
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if sentence:
        yield sentence
