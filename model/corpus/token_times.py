"""When each token of a text was said, by the phones that its speaker told of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.text.encode import TokenSequence
from model.text.symbols import BOS, EOS, MARKS, SYMBOLS, WORD_BOUNDARY, split_phone

_SILENT = frozenset((BOS, EOS, WORD_BOUNDARY, *MARKS))


def token_times(tokens: TokenSequence, timings: Sequence[tuple[str, float, float]]) -> np.ndarray:
    """When each token of a text was said.

    Phones and tokens are matched in order with the fewest changes: a speaker may join, drop or colour a phone where
    two words meet. A phone of several symbols shares its time between them.

    Returns:
        (T, 2) start and end in seconds; NaN for tokens without a phone of their own (boundaries, marks, BOS, EOS).
    """
    said = []
    for phone, start, end in timings:
        parts = split_phone(phone)
        edges = np.linspace(start, end, len(parts) + 1)
        said += [(SYMBOLS[symbol], edges[i], edges[i + 1]) for i, (symbol, _) in enumerate(parts)]
    times = np.full((len(tokens.phones), 2), np.nan)
    wanted = [index for index, symbol in enumerate(tokens.phones) if symbol not in _SILENT]
    for token, phone in _match([tokens.phones[index] for index in wanted], [symbol for symbol, _, _ in said]):
        times[wanted[token]] = said[phone][1:]
    return times


def _similarity(a: str, b: str) -> float:
    """1 for the same phone, nearly so for one of another length, little for any other."""
    if a == b:
        return 1.0
    return 0.9 if a.rstrip("ː") == b.rstrip("ː") else -0.4


def _match(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """Index pairs of the best global alignment of two sequences of phones (Needleman and Wunsch 1970)."""
    gap = -0.3
    score = np.zeros((len(a) + 1, len(b) + 1))
    score[:, 0] = gap * np.arange(len(a) + 1)
    score[0, :] = gap * np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            paired = score[i - 1, j - 1] + _similarity(a[i - 1], b[j - 1])
            score[i, j] = max(paired, score[i - 1, j] + gap, score[i, j - 1] + gap)
    pairs, i, j = [], len(a), len(b)
    while i and j:
        if score[i, j] == score[i - 1, j - 1] + _similarity(a[i - 1], b[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif score[i, j] == score[i - 1, j] + gap:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
