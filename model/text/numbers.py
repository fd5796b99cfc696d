"""Numbers in words (num2words), with the inflections that languages require beside a noun."""

from __future__ import annotations

import re
from functools import lru_cache

from model.text import mandarin

MAX_DIGITS = 15
"""Longer numbers are read digit by digit."""

_BEFORE_NOUN = {
    "de": [(r"eins$", "ein")], "es": [(r"veintiuno$", "veintiún"), (r"\buno$", "un")], "it": [(r"^uno$", "un")],
}  # fmt: skip
_FEMININE = {
    "de": (r"eins$", "eine"), "es": (r"uno$", "una"), "fr": (r"\bun$", "une"), "it": (r"^uno$", "una"),
}  # fmt: skip
# Ending of a Russian ordinal -> case and gender, as num2words names them.
_RUSSIAN = {
    "й": ("n", "m"), "ый": ("n", "m"), "ий": ("n", "m"), "ой": ("n", "m"), "я": ("n", "f"), "ая": ("n", "f"),
    "е": ("n", "n"), "ое": ("n", "n"), "го": ("g", "m"), "му": ("d", "m"), "м": ("p", "m"), "ю": ("a", "f"),
    "ую": ("a", "f"),
}  # fmt: skip


@lru_cache(8192)
def cardinal(digits: str, language: str, feminine: bool = False) -> str:
    """Returns a whole number in words; with a leading zero or too many digits it is read digit by digit."""
    if len(digits) > MAX_DIGITS or (len(digits) > 1 and digits.startswith("0")):
        return one_by_one(digits, language)
    if language == "zh":
        return mandarin.cardinal(digits)
    words = _words(digits, language, "cardinal", **({"gender": "f"} if feminine and language == "ru" else {}))
    return re.sub(*_FEMININE[language], words) if feminine and language in _FEMININE else words


def one_by_one(digits: str, language: str) -> str:
    """Returns the words of each digit."""
    if language == "zh":
        return mandarin.one_by_one(digits)
    return " ".join(_words(digit, language, "cardinal") for digit in digits)


def before_noun(digits: str, language: str) -> str:
    """Returns a number in its form before a noun: `veintiún`, `ein`."""
    words = cardinal(digits, language)
    for pattern, short in _BEFORE_NOUN.get(language, ()):
        words = re.sub(pattern, short, words)
    return words


@lru_cache(1024)
def year(digits: str, language: str) -> str:
    """Returns a year in words."""
    return mandarin.one_by_one(digits) if language == "zh" else _words(digits, language, "year").replace("n h", "nh")


@lru_cache(1024)
def ordinal(digits: str, language: str, ending: str = "") -> str:
    """Returns an ordinal number; `ending`, written after the digits, determines gender and case."""
    if language == "ru":
        case, gender = _RUSSIAN[ending or "й"]
        return _words(digits, "ru", "ordinal", case=case, gender=gender)
    words = _words(digits, language, "ordinal")
    if language == "fr" and ending in ("re", "ère", "ere"):
        return words.replace("premier", "première")
    if language == "es" and ending == "er":
        return re.sub("(primer|tercer)o$", r"\1", words)
    if language in ("es", "it") and ending == "ª":
        return re.sub(r"o\b", "a", words)
    return words + ending if language == "de" else words


def russian_fraction_part(denominator: str, numerator: int) -> str:
    """Returns the denominator of a Russian fraction: nominative after one, else genitive plural."""
    one = numerator % 10 == 1 and numerator % 100 != 11
    if one:
        return _words(denominator, "ru", "ordinal", case="n", gender="f")
    return _words(denominator, "ru", "ordinal", case="g", plural=True)


def plural_form(digits: str, language: str, forms: int) -> int:
    """Returns the index of the noun form (singular, plural, Russian genitive plural) that follows a number.

    Args:
        digits: The whole number, or '' for a number with decimals.
        forms: Number of forms.
    """
    if forms == 1:
        return 0
    if not digits:
        return 1
    number = int(digits)
    if language != "ru":
        return 0 if number == 1 or (language == "fr" and number == 0) else 1
    if number % 10 == 1 and number % 100 != 11:
        return 0
    few = 2 <= number % 10 <= 4 and not 12 <= number % 100 <= 14
    return 1 if few else forms - 1


def _words(digits: str, language: str, kind: str, **inflection: str | bool) -> str:
    from num2words import num2words

    return str(num2words(int(digits), lang=language, to=kind, **inflection)).replace(",", "").replace("-", " ")
