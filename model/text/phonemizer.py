"""Normalized text to phones by espeak-ng, with punctuation kept as tokens."""

from __future__ import annotations

import re

from model.text import espeak, mandarin
from model.text.languages import MANDARIN, language_of
from model.text.symbols import MARKS

_CLAUSE = re.compile(r"(?:^|\s+)(-)(?=\s|$)|([,.?!;:…])(?=\s|$)")


def phonemize(text: str, language: str) -> list[list[str]]:
    """Returns the words and marks of a normalized text, in order.

    espeak-ng drops punctuation, so it gets the text between two marks at a time.

    Args:
        text: Output of `normalize`.
        language: Language name.

    Returns:
        For every word the list of its phones with stress marks, for every mark a list of that mark.

    Raises:
        TextError: the language is unknown.
    """
    voice = language_of(language).voice
    sequence: list[list[str]] = []
    position = 0
    for mark in _CLAUSE.finditer(text):
        sequence += _words(text[position : mark.start()], voice)
        if sequence and sequence[-1][0] not in MARKS:
            sequence.append([mark[1] or mark[2]])
        position = mark.end()
    return sequence + _words(text[position:], voice)


def _words(text: str, voice: str) -> list[list[str]]:
    if voice == MANDARIN:
        return list(mandarin.phone_words(text))
    return espeak.phone_words(text, voice)
