"""Times of the tokens of a text, from known times of phones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.corpus.pairing import pair_in_order
from model.text.encode import TokenSequence
from model.text.symbols import BOS, EOS, MARKS, SYMBOLS, WORD_BOUNDARY, split_phone

_UNPAIRED = -0.3
"""Score of a token or phone without a counterpart."""
_SILENT = frozenset((BOS, EOS, WORD_BOUNDARY, *MARKS))


def token_times(tokens: TokenSequence, timings: Sequence[tuple[str, float, float]]) -> np.ndarray:
    """Returns the times of the tokens of a text.

    Phones and tokens are aligned in order, since phones may be merged, dropped or changed where two words meet. A phone
    of several symbols divides its time evenly between them.

    Returns:
        (T, 2) start and end in seconds; NaN for tokens without a phone (boundaries, marks, BOS, EOS).
    """
    spoken: list[tuple[str, float, float]] = []
    for phone, start, end in timings:
        symbols = split_phone(phone)
        edges = np.linspace(start, end, len(symbols) + 1)
        spoken += [(SYMBOLS[symbol], edges[i], edges[i + 1]) for i, (symbol, _) in enumerate(symbols)]
    times = np.full((len(tokens.phones), 2), np.nan)
    audible = [index for index, symbol in enumerate(tokens.phones) if symbol not in _SILENT]
    scores = [[_similarity(tokens.phones[index], symbol) for symbol, _, _ in spoken] for index in audible]
    pairs = pair_in_order(np.array(scores).reshape(len(audible), len(spoken)), _UNPAIRED, _UNPAIRED)
    for token, position in pairs:
        times[audible[token]] = spoken[position][1:]
    return times


def _similarity(a: str, b: str) -> float:
    """Returns 1 for equal phones, less for phones that differ in length only, and a negative score for others."""
    if a == b:
        return 1.0
    return 0.9 if a.rstrip("ː") == b.rstrip("ː") else -0.4
