"""When each token of a text was said, by the phones that its speaker told of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.corpus.pairing import pair_in_order
from model.text.encode import TokenSequence
from model.text.symbols import BOS, EOS, MARKS, SYMBOLS, WORD_BOUNDARY, split_phone

_ALONE = -0.3
"""Score of a phone that the other side lacks."""
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
    likeness = [[_similarity(tokens.phones[index], symbol) for symbol, _, _ in said] for index in wanted]
    for token, phone in pair_in_order(np.array(likeness).reshape(len(wanted), len(said)), _ALONE, _ALONE):
        times[wanted[token]] = said[phone][1:]
    return times


def _similarity(a: str, b: str) -> float:
    """1 for the same phone, nearly so for one of another length, little for any other."""
    if a == b:
        return 1.0
    return 0.9 if a.rstrip("ː") == b.rstrip("ː") else -0.4
