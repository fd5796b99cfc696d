"""Plausibility of a text's language, by its script and by its most common words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from model.text.languages import language_of

# The most common words of each language that are rare in the others.
_COMMON = {
    "en": "the of and to that was it is with for his he she on be had not you as but at from they which this are were",
    "de": "der die und das ist nicht ich mit sich des dem auf für ein eine wie auch werden sie zu von haben wir bei",
    "es": "el los las una que es por con para del no su al lo como más pero sus está muy y se",
    "fr": "le les des est une que dans pour qui au pas sur vous il je ce elle sont avec du et nous votre mais",
    "it": "il che di è per non una sono con della del gli nel più alla anche ma questo lo ha e si dei",
    "nl": "het een van en is dat niet te zijn op met voor er ik hij aan wij naar ook je maar om bij deze",
}
_WORD = re.compile(r"[^\W\d_]+")
LETTERS_PER_CHARACTER = 3.0
"""Letters per Chinese character: its pinyin has about three."""
MIN_WORDS = 6
"""Shorter texts are not identified by their words."""
MIN_LEAD = 3
"""Common words by which another language must exceed the given one."""


def foreign_share(text: str, language: str) -> float:
    """Returns the fraction of letters outside of the language's main script; 0 for a language without rules."""
    scripts = language_of(language).scripts
    if not scripts:
        return 0.0
    main = scripts[:1]  # words in another one, such as Latin in Persian, can be spoken but are foreign
    letters = [character for character in text if character.isalpha()]
    foreign = [character for character in letters if not _script(character).startswith((*main, "COMBINING"))]
    return spoken_length(foreign) / spoken_length(letters) if letters else 0.0


def spoken_length(text: Iterable[str]) -> float:
    """Returns the length of a text in letters, which is proportional to its duration in any script."""
    return sum(LETTERS_PER_CHARACTER if unicodedata.east_asian_width(one) == "W" else 1.0 for one in text)


def other_language(text: str, language: str) -> str:
    """Returns the language of a text's common words if it is clearly not `language`, else ''."""
    base = language.partition("-")[0]
    words = [word.lower() for word in _WORD.findall(text)]
    if base not in _COMMON or len(words) < MIN_WORDS:
        return ""
    hits = {name: sum(word in common for word in words) for name, common in _common().items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] >= 2 * hits[base] + MIN_LEAD else ""


@cache
def _common() -> dict[str, frozenset[str]]:
    return {name: frozenset(words.split()) for name, words in _COMMON.items()}


@cache
def _script(character: str) -> str:
    return unicodedata.name(character, "")
