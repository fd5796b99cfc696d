"""Which language a text is written in: by its letters, and among those that share them by their commonest words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from model.text.languages import language_of

# The commonest words that are no word of the others, or rarely one.
_COMMON = {
    "en": "the of and to that was it is with for his he she on be had not you as but at from they which this are were",
    "de": "der die und das ist nicht ich mit sich des dem auf für ein eine wie auch werden sie zu von haben wir bei",
    "es": "el los las una que es por con para del no su al lo como más pero sus está muy y se",
    "fr": "le les des est une que dans pour qui au pas sur vous il je ce elle sont avec du et nous votre mais",
    "it": "il che di è per non una sono con della del gli nel più alla anche ma questo lo ha e si dei",
    "nl": "het een van en is dat niet te zijn op met voor er ik hij aan wij naar ook je maar om bij deze",
}
_WORD = re.compile(r"[^\W\d_]+")
LETTERS_OF_A_CHARACTER = 3.0
"""Letters that a Chinese character counts for: its pinyin has some three."""
LEAST_WORDS = 6
"""Shorter texts are not judged by their words."""
LEAST_LEAD = 3
"""By so many common words another language must be ahead of the claimed one."""


def foreign_share(text: str, language: str) -> float:
    """Share of a text's letters that are of none of the language's scripts; 0 for a language without rules."""
    scripts = language_of(language).scripts
    if not scripts:
        return 0.0
    own = scripts[:1]  # the others, such as Latin words in Persian, are allowed and not its own
    letters = [character for character in text if character.isalpha()]
    foreign = [character for character in letters if not _script(character).startswith((*own, "COMBINING"))]
    return spoken_length(foreign) / spoken_length(letters) if letters else 0.0


def spoken_length(text: Iterable[str]) -> float:
    """Length of a text in letters, the measure of how long it takes to say in any script."""
    return sum(LETTERS_OF_A_CHARACTER if unicodedata.east_asian_width(one) == "W" else 1.0 for one in text)


def seems(text: str, language: str) -> str:
    """The language whose common words a text has when these are clearly not the claimed one's, else ''."""
    base = language.partition("-")[0]
    words = [word.lower() for word in _WORD.findall(text)]
    if base not in _COMMON or len(words) < LEAST_WORDS:
        return ""
    hits = {name: sum(word in common for word in words) for name, common in _common().items()}
    best = max(hits, key=hits.get)
    return best if hits[best] >= hits[base] + LEAST_LEAD and hits[best] >= 2 * hits[base] + LEAST_LEAD else ""


@cache
def _common() -> dict[str, frozenset[str]]:
    return {name: frozenset(words.split()) for name, words in _COMMON.items()}


@cache
def _script(character: str) -> str:
    return unicodedata.name(character, "")
