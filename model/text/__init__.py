"""Text to tokens: normalization, phonemes from espeak-ng, and the fixed symbol table; texts recognized as the same."""

from __future__ import annotations

import hashlib
import unicodedata


def spoken_form(text: str) -> str:
    """Returns the letters and digits of a text in lower case; two readings of one sentence are equal in it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def sentence_hash(text: str) -> str:
    """Returns a hash (16 hex digits) of the spoken form of a text, by which a sentence is recognized."""
    return hashlib.sha256(spoken_form(text).encode()).hexdigest()[:16]
