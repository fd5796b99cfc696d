"""Text to tokens: normalization, phonemes from espeak-ng, and the fixed symbol table; hashes of sentences."""

from __future__ import annotations

import hashlib
import unicodedata


def spoken_form(text: str) -> str:
    """Returns the letters and digits of a text in lower case, which do not depend on punctuation and spacing."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def sentence_hash(text: str) -> str:
    """Returns a hash (16 hex digits) of the spoken form of a text, which identifies a sentence."""
    return hashlib.sha256(spoken_form(text).encode()).hexdigest()[:16]
