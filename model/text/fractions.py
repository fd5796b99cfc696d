"""Fractions in words: `3/4` is three quarters, drei Viertel, trois quarts, 四分之三."""

from __future__ import annotations

from model.text import mandarin
from model.text.numbers import before_noun, cardinal, ordinal, russian_fraction_part

_NAMES = {
    "en": {2: ("half", "halves"), 4: ("quarter", "quarters"), 100: ("hundredth", "hundredths")},
    "de": {2: ("halb", "halbe")},
    "es": {
        2: ("medio", "medios"), 3: ("tercio", "tercios"), 4: ("cuarto", "cuartos"), 7: ("séptimo", "séptimos"),
        9: ("noveno", "novenos"),
    },
    "fr": {2: ("demi", "demis"), 3: ("tiers", "tiers"), 4: ("quart", "quarts")},
    "it": {2: ("mezzo", "mezzi")},
    "nl": {2: ("half", "half"), 4: ("kwart", "kwart")},
}  # fmt: skip
"""Names of denominators that do not follow from their ordinal: singular and plural."""
COMMON_DENOMINATORS = frozenset((*range(2, 11), 12, 16, 20, 32, 64, 100))
"""Denominators that make a fraction of two numbers with a slash; `9/11` and `24/7` are none."""


_ONE = {"nl": "een", "en": "one", "fr": "un"}


def fraction(numerator: str, denominator: str, language: str) -> str:
    """Returns a fraction in the words of a language with rules; both numbers are above 0."""
    number, parts = int(numerator), int(denominator)
    if language == "zh":
        return f"{mandarin.cardinal(denominator)}分之{mandarin.cardinal(numerator)}"
    if language == "ru":
        return f"{cardinal(numerator, 'ru', True)} {russian_fraction_part(denominator, number)}"
    count = _ONE[language] if number == 1 and language in _ONE else before_noun(numerator, language)
    named = _NAMES.get(language, {}).get(parts)
    part = named[number != 1] if named else _part(denominator, language, number != 1)
    return f"{count} {part}"


def _part(denominator: str, language: str, several: bool) -> str:
    """Returns the name of a denominator by its ordinal: fifth, Fünftel, doceavo."""
    if language == "es" and int(denominator) > 10 and denominator != "100":
        word = cardinal(denominator, "es").replace(" y ", "i").replace(" ", "") + "avo"
        return word + "s" * several
    word = ordinal(denominator, language)
    if language == "de":
        return f"{word[:-1]}el".capitalize()
    if language == "it":
        return word[:-1] + ("i" if several else "o")
    return word + "s" * (several and language in ("en", "es", "fr"))
