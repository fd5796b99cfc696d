"""Comparison of texts regardless of case and punctuation."""

from __future__ import annotations

import unicodedata


def spoken_form(text: str) -> str:
    """Returns the letters and digits of a text in lower case; two readings of one sentence are equal in it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())
