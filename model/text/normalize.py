"""Text normalization: numbers, abbreviations and signs in words, unified letters, punctuation marks kept."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from model.text.languages import Language, language_of
from model.text.rules import rules_of

ZERO_WIDTH_NON_JOINER = "\u200c"

# One character for each kind of mark. Brackets become pauses; quotation marks are dropped.
_MARKS = str.maketrans(
    {"،": ",", "、": ", ", "。": ". ", "؛": ";", "؟": "?", "٫": ".", "٬": ",", "¿": " ", "¡": " "}
    | dict.fromkeys("([{《（【", ", ")
    | dict.fromkeys(")]}》）】", ",")
    | dict.fromkeys("‘’‛ʼ´`", "'")
    | dict.fromkeys('“”„«»‹›「」『』"', " ")
    | dict.fromkeys("—―", " - ")
    | dict.fromkeys("‐‑", "-")
    | {"−": "-", "\u00ad": "", "\ufeff": "", "\u200b": "", "\u200d": "", "￥": "¥"}
    | dict.fromkeys("\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069", "")
)
_AFTER_DIGITS = str.maketrans({"–": " - ", "/": " "})
"""Signs that are spoken between digits; between words they are a pause or silent."""
_COMPATIBLE = re.compile("([^ºª¼-¾⅐-⅞↉№²³¹⁰-⁹₀-₉™℠…]+)")
"""Characters to replace by their NFKC form; the excluded signs would turn into letters or digits."""
_NUMERIC = re.compile("[\\d¼-¾⅐-⅞↉]")
_VULGAR = re.compile("(\\d)?([¼-¾⅐-⅞↉])")
_TIMES = re.compile(r"(?<=\d)\s?[*·⋅∗]\s?(?=\d)|(?<=[1-9])[xX](?=\d)")
_EMPHASIS = re.compile(r"(?<=[^\W_])[*_]++(?![*_])|(?<![\w*])[*_]++(?=[^\W_])")
"""Markup of emphasis and of joined words, beside a word; elsewhere `*` and `_` are unknown characters."""
_SLASH_DECIMAL = re.compile("(?<![\\d/])([۰-۹٠-٩]{1,3})/([۰-۹٠-٩]+)(?![\\d/])")
_COMMON_FRACTIONS = frozenset(((1, 2), (1, 3), (2, 3), (1, 4), (3, 4)))
"""Pairs of numbers with a slash that are fractions where a slash is also the decimal sign."""
_PERCENT_FIRST = re.compile(r"(?<!\d)(?<!\d\s)([%٪])\s?(\d+(?:[.,٫٬/]\d+)*)(?!\s?[%٪])")
_STRENGTH = "-,:;….!?"  # of several marks in a row, the one furthest right here is kept
_MARK_RUN = re.compile(r"(?:\s*[,.?!;:…]|\s+-(?=\s|$))+(?=\s|$)|(?:\s*[,?!;…])+")


@dataclass
class Normalized:
    """A normalized text.

    Attributes:
        text: Words and punctuation, the marks of `model.text.symbols.MARKS`.
        unknown: Characters that cannot be spoken in the language and are left out, with their counts.
        changes: (written, spoken) form of every part that was replaced.
    """

    text: str
    unknown: Counter[str] = field(default_factory=Counter)
    changes: list[tuple[str, str]] = field(default_factory=list)


def normalize(text: str, language: str) -> Normalized:
    """Writes numbers, dates, times, units, abbreviations and signs of a text as words, and unifies its punctuation.

    Args:
        text: As written.
        language: `en`, `fa`, or any voice of espeak-ng; one without rules (`model.text.languages`) keeps its digits.
    """
    rules = language_of(language)
    result = Normalized("")
    text = " ".join(text.split())
    if rules.numbers and _NUMERIC.search(text):
        text = " ".join(_TIMES.sub("×", _VULGAR.sub(_fraction_digits, text)).split())
        if rules.slash_decimal:
            text = _PERCENT_FIRST.sub(r"\2\1", text)
            text = _SLASH_DECIMAL.sub(_decimal_or_fraction, text)
    text = _EMPHASIS.sub(" ", text) if "*" in text or "_" in text else text
    text = _compatible(text.replace("…", " … ").translate(_MARKS)).translate(_MARKS)
    text = re.sub(r"-{2,}", " - ", text.replace("...", " … "))
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)  # a quotation mark, not an apostrophe
    for variant, letter in rules.letters.items():
        text = text.replace(variant, letter)
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    has_digits = any(character.isdigit() for character in text)
    for pattern, spoken in rules_of(language, has_digits):
        text = _rewrite(pattern, spoken, text, result.changes, rules.spaced)
    kept = []
    for character in text.translate(_AFTER_DIGITS):
        kept_as_is = character in " ',.?!;:…-" or character.isdecimal() or _speakable(character, rules)
        if not (kept_as_is or character.isspace()):
            result.unknown[character] += 1
            character = " "
        kept.append(character)
    text = _MARK_RUN.sub(lambda run: _strongest(run[0]), " ".join("".join(kept).split()))
    result.text = re.sub(r"^[\s,.?!;:…-]+", "", " ".join(text.split()))
    return result


def _fraction_digits(match: re.Match[str]) -> str:
    """Returns ` 2 1⁄2 ` for `2½`: in digits, with a slash that only fractions have."""
    return f"{match[1] or ''} {unicodedata.normalize('NFKC', match[2])} "


def _decimal_or_fraction(match: re.Match[str]) -> str:
    """Returns `۲/۵` as the decimal number 2.5, and `۱/۲` as it is: a half."""
    fraction = (int(match[1]), int(match[2])) in _COMMON_FRACTIONS
    return match[0] if fraction else f"{match[1]}٫{match[2]}"


def _compatible(text: str) -> str:
    return text if text.isascii() else _COMPATIBLE.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)


def _rewrite(
    pattern: re.Pattern[str],
    spoken: Callable[[re.Match[str]], str],
    text: str,
    changes: list[tuple[str, str]],
    spaced: bool,
) -> str:
    """Returns a text with every match replaced by its words, set apart by spaces, and records the changes."""

    def replace(match: re.Match[str]) -> str:
        words = spoken(match)
        if words == match[0]:
            return words  # the rule does not apply here
        changes.append((match[0], words.strip()))
        before = match.string[max(match.start() - 1, 0) : match.start()]
        after = match.string[match.end() : match.end() + 1]
        if not spaced:
            return words
        return f"{' ' if before.isalnum() else ''}{words}{' ' if after.isalnum() else ''}"

    return pattern.sub(replace, text)


def _speakable(character: str, rules: Language) -> bool:
    if character == ZERO_WIDTH_NON_JOINER:
        return True
    if unicodedata.category(character)[0] not in "LM":
        return False
    return not rules.scripts or unicodedata.name(character, "").startswith((*rules.scripts, "COMBINING"))


def _strongest(run: str) -> str:
    mark = max((character for character in run if character in _STRENGTH), key=_STRENGTH.index)
    return " - " if mark == "-" else f"{mark} "
