"""Written text to speakable words: figures, abbreviations and signs are written out, letters unified, marks kept."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from model.text.languages import Language, language_of
from model.text.rules import rules_of

ZERO_WIDTH_NON_JOINER = "\u200c"

# One sign for each kind of mark. Brackets are pauses; quotation marks are not heard.
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
_AFTER_FIGURES = str.maketrans({"–": " - ", "/": " "})
"""Signs that mean something between figures, and a pause or nothing between words."""
_COMPATIBLE = re.compile("([^ºª¼-¾⅐-⅞↉№²³¹⁰-⁹₀-₉™℠…]+)")
"""What is brought to its compatible form; the signs left out would turn into letters or figures."""
_NUMERIC = re.compile("[\\d¼-¾⅐-⅞↉]")
_VULGAR = re.compile("(\\d)?([¼-¾⅐-⅞↉])")
_TIMES = re.compile(r"(?<=\d)\s?[*·⋅∗]\s?(?=\d)|(?<=[1-9])[xX](?=\d)")
_EMPHASIS = re.compile(r"(?<=[^\W_])[*_]++(?![*_])|(?<![\w*])[*_]++(?=[^\W_])")
"""Marks of emphasis and of joined words, at a word; elsewhere they are signs that nobody can speak."""
_SLASH_DECIMAL = re.compile("(?<![\\d/])([۰-۹٠-٩]{1,3})/([۰-۹٠-٩]+)(?![\\d/])")
_EVERYDAY = frozenset(((1, 2), (1, 3), (2, 3), (1, 4), (3, 4)))
"""Fractions that are written with the same slash as decimals, and meant as fractions."""
_PERCENT_FIRST = re.compile(r"(?<!\d)(?<!\d\s)([%٪])\s?(\d+(?:[.,٫٬/]\d+)*)(?!\s?[%٪])")
_STRENGTH = "-,:;….!?"  # of several marks in a row, the one furthest right is kept
_MARK_RUN = re.compile(r"(?:\s*[,.?!;:…]|\s+-(?=\s|$))+(?=\s|$)|(?:\s*[,?!;…])+")


@dataclass
class Normalized:
    """A text as it is spoken.

    Attributes:
        text: Words, with marks of `model.text.symbols.MARKS` behind them.
        unknown: Characters that were left out because the language cannot speak them.
        changes: (written, spoken) of everything written out in words.
    """

    text: str
    unknown: Counter = field(default_factory=Counter)
    changes: list[tuple[str, str]] = field(default_factory=list)


def normalize(text: str, language: str) -> Normalized:
    """Write out a text in the words that are spoken."""
    rules = language_of(language)
    result = Normalized("")
    text = " ".join(text.split())
    if rules.numbers and _NUMERIC.search(text):
        text = " ".join(_TIMES.sub("×", _VULGAR.sub(_fraction_figures, text)).split())
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
    figures = any(character.isdigit() for character in text)
    for pattern, spoken in rules_of(language, figures):
        text = _rewrite(pattern, spoken, text, result.changes, rules.spaced)
    kept = []
    for character in text.translate(_AFTER_FIGURES):
        kept_as_is = character in " ',.?!;:…-" or character.isdecimal() or _speakable(character, rules)
        if not (kept_as_is or character.isspace()):
            result.unknown[character] += 1
            character = " "
        kept.append(character)
    text = _MARK_RUN.sub(lambda run: _strongest(run[0]), " ".join("".join(kept).split()))
    result.text = re.sub(r"^[\s,.?!;:…-]+", "", " ".join(text.split()))
    return result


def _fraction_figures(match: re.Match) -> str:
    """`2½` as ` 2 1⁄2 `: the sign in figures, with a slash that is of nothing but fractions."""
    return f"{match[1] or ''} {unicodedata.normalize('NFKC', match[2])} "


def _decimal_or_fraction(match: re.Match) -> str:
    """`۲/۵` is 2.5 as people type it, `۱/۲` a half."""
    fraction = (int(match[1]), int(match[2])) in _EVERYDAY
    return match[0] if fraction else f"{match[1]}٫{match[2]}"


def _compatible(text: str) -> str:
    return text if text.isascii() else _COMPATIBLE.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)


def _rewrite(pattern: re.Pattern, spoken: Callable[[re.Match], str], text: str, changes: list, spaced: bool) -> str:
    def replace(match: re.Match) -> str:
        words = spoken(match)
        if words == match[0]:
            return words  # the rule has found that it does not hold here
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
