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
    | dict.fromkeys('“”„«»‹›「」『』"*_', " ")
    | dict.fromkeys("—―", " - ")
    | dict.fromkeys("‐‑", "-")
    | {"−": "-", "·": " ", "\u00ad": "", "\ufeff": "", "\u200b": "", "\u200d": "", "￥": "¥"}
    | dict.fromkeys("\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069", "")
)
_AFTER_FIGURES = str.maketrans({"–": " - ", "/": " ", "\\": " ", "|": " ", "~": " "})
"""Signs that mean something between figures, and nothing elsewhere."""
_COMPATIBLE = re.compile("([^ºª½¼¾№]+)")
"""What is brought to its compatible form; the signs left out would turn into letters or figures."""
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
        if not (character.isspace() or character in "',.?!;:…-" or character.isdigit() or _speakable(character, rules)):
            result.unknown[character] += 1
            character = " "
        kept.append(character)
    text = _MARK_RUN.sub(lambda run: _strongest(run[0]), "".join(kept))
    result.text = re.sub(r"^[\s,.?!;:…-]+", "", " ".join(text.split()))
    return result


def _compatible(text: str) -> str:
    return _COMPATIBLE.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)


def _rewrite(pattern: re.Pattern, spoken: Callable[[re.Match], str], text: str, changes: list, spaced: bool) -> str:
    def replace(match: re.Match) -> str:
        words = spoken(match)
        changes.append((match[0], words.strip()))
        before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
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
