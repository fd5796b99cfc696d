"""Text to token ids, the input of the acoustic model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from model.errors import TextError
from model.text.normalize import normalize
from model.text.phonemizer import phonemize
from model.text.symbols import BOS, EOS, MARKS, SYMBOL_IDS, SYMBOLS, WORD_BOUNDARY, split_phone


@dataclass(frozen=True)
class TokenSequence:
    """Encoded text of T tokens.

    Attributes:
        ids: (T, 2) int64: symbol id, and stress (0 none, 1 primary, 2 secondary).
        phones: T symbols, for display.
        unknown: Characters that cannot be spoken and are left out, with their counts.
    """

    ids: np.ndarray
    phones: list[str]
    unknown: Counter[str]


def encode(text: str, language: str) -> TokenSequence:
    """Returns the tokens of a text: BOS, phones with a boundary or a mark between two words, EOS.

    Args:
        text: As written; it is normalized first.
        language: `en`, `fa`, or any voice of espeak-ng.

    Raises:
        TextError: nothing in the text can be spoken, or the language is unknown.
    """
    if not text.strip():
        raise TextError("the text is empty; give at least one word")
    normalized = normalize(text, language)
    unknown = Counter(normalized.unknown)
    tokens = [(SYMBOL_IDS[BOS], 0)]
    after_word = False
    spoken = False
    for item in phonemize(normalized.text, language):
        if item[0] in MARKS:
            tokens.append((SYMBOL_IDS[item[0]], 0))
            after_word = False  # a mark is a word boundary too
            continue
        if after_word:
            tokens.append((SYMBOL_IDS[WORD_BOUNDARY], 0))
        word = [token for phone in item for token in split_phone(phone, unknown)]
        tokens += word
        spoken |= bool(word)
        after_word = True
    if not spoken:
        raise TextError(f"nothing in {text!r} can be spoken in language {language!r}; check the text and its language")
    tokens.append((SYMBOL_IDS[EOS], 0))
    ids = np.array(tokens, dtype=np.int64)
    return TokenSequence(ids, [SYMBOLS[index] for index in ids[:, 0]], unknown)
