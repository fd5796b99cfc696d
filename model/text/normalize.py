"""Written text to speakable words: figures, abbreviations and signs are written out, letters unified, marks kept."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache

from model.text.languages import Language, language_of

ZERO_WIDTH_NON_JOINER = "\u200c"

# One sign for each kind of mark. Brackets are pauses; quotation marks are not heard.
_MARKS = str.maketrans(
    {"،": ",", "、": ", ", "。": ". ", "؛": ";", "؟": "?", "٫": ".", "٬": ",", "¿": " ", "¡": " "}
    | dict.fromkeys("([{", ", ")
    | dict.fromkeys(")]}", ",")
    | dict.fromkeys("‘’‛ʼ´`", "'")
    | dict.fromkeys('“”„«»‹›"*_', " ")
    | dict.fromkeys("—–―", " - ")
    | dict.fromkeys("‐‑", "-")
    | {"−": "-", "/": " ", "\\": " ", "|": " ", "~": " ", "\u00ad": "", "\ufeff": "", "\u200b": "", "\u200d": ""}
    | dict.fromkeys("\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069", "")
)
_STRENGTH = "-,:;….!?"  # of several marks in a row, the one furthest right is kept
_MARK_RUN = re.compile(r"(?:\s*[,.?!;:…]|\s+-(?=\s|$))+(?=\s|$)|(?:\s*[,?!;…])+")
_NUMBER = re.compile(r"(?<![\w.])(-?)(\d+(?:,\d{3})*|\d+)(\.\d+)?")
_TIME = re.compile(r"(?<!\d)([01]?\d|2[0-3]):([0-5]\d)(?!\d)")
_DECADE = re.compile(r"(?<![\w.])(1[1-9]\d0|20[1-9]0)'?s\b")
_INITIALISM = re.compile(r"\b(?:[A-Z]\.){2,}|\b[A-Z]\.(?=\s+[A-Z])")
_LONGEST_FIGURE = 15  # digits; more are read one by one


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
    text = unicodedata.normalize("NFKC", text.replace("…", " … ").translate(_MARKS)).translate(_MARKS)
    text = re.sub(r"-{2,}", " - ", text.replace("...", " … "))
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)  # a quotation mark, not an apostrophe
    for variant, letter in rules.letters.items():
        text = text.replace(variant, letter)
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    for pattern, spoken in _rules(language):
        text = _rewrite(pattern, spoken, text, result.changes)
    kept = []
    for character in text:
        if not (character.isspace() or character in "',.?!;:…-" or character.isdigit() or _speakable(character, rules)):
            result.unknown[character] += 1
            character = " "
        kept.append(character)
    text = _MARK_RUN.sub(lambda run: _strongest(run[0]), "".join(kept))
    result.text = re.sub(r"^[\s,.?!;:…-]+", "", " ".join(text.split()))
    return result


@cache
def _rules(language: str) -> tuple[tuple[re.Pattern, Callable[[re.Match], str]], ...]:
    """Patterns of a language in the order in which they are applied, each with what is said in its place."""
    rules = language_of(language)
    found: list[tuple[re.Pattern, Callable[[re.Match], str]]] = []
    if rules.abbreviations:
        words = "|".join(re.escape(word) for word in sorted(rules.abbreviations, key=len, reverse=True))
        found.append((re.compile(rf"(?<!\w)(?:{words})(?!\w)"), lambda match: rules.abbreviations[match[0]]))
    found.append((_INITIALISM, lambda match: match[0].replace(".", "")))
    if rules.numbers:
        if rules.currencies:
            signs = "".join(map(re.escape, rules.currencies))
            amount = re.compile(rf"([{signs}])\s?({_NUMBER.pattern})((?: (?:hundred|thousand|million|billion))?)")
            found.append((amount, lambda match: _amount(match, rules)))
        found.append((_TIME, lambda match: _time(match, rules)))
        ordinal = re.compile(rf"(?<![\w.])(\d+(?:,\d{{3}})*)(?:{rules.ordinal})(?!\w)")
        found.append((ordinal, lambda match: _words(match[1].replace(",", ""), rules.numbers, "ordinal")))
        if rules.years:
            found.append((_DECADE, lambda match: re.sub("y$", "ie", _words(match[1], rules.numbers, "year")) + "s"))
        found.append((_NUMBER, lambda match: _number(match[0], rules)))
    if rules.symbols:
        signs = "".join(map(re.escape, rules.symbols))
        found.append((re.compile(f"[{signs}]"), lambda match: rules.symbols[match[0]]))
    return tuple(found)


def _rewrite(pattern: re.Pattern, spoken: Callable[[re.Match], str], text: str, changes: list) -> str:
    def replace(match: re.Match) -> str:
        words = spoken(match)
        changes.append((match[0], words))
        before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
        return f"{' ' if before.isalnum() else ''}{words}{' ' if after.isalnum() else ''}"

    return pattern.sub(replace, text)


def _number(figure: str, rules: Language) -> str:
    negative = figure.startswith("-")
    whole, _, decimals = figure.lstrip("-").partition(".")
    year = rules.years and "," not in whole and not decimals and whole.isdigit() and 1100 <= int(whole) <= 2099
    year = year and not 2000 <= int(whole) <= 2009
    parts = [rules.minus] if negative else []
    parts.append(_words(whole.replace(",", ""), rules.numbers, "year" if year else "cardinal"))
    if decimals:
        parts += [rules.point, *(_words(digit, rules.numbers, "cardinal") for digit in decimals)]
    return " ".join(parts)


def _amount(match: re.Match, rules: Language) -> str:
    figure, scale = match[2], match[match.re.groups]
    singular, plural = rules.currencies[match[1]]
    return f"{_number(figure, rules)}{scale} {singular if figure == '1' and not scale else plural}"


def _time(match: re.Match, rules: Language) -> str:
    hour, minutes = (_words(str(int(part)), rules.numbers, "cardinal") for part in match.groups())
    template = rules.hour if int(match[2]) == 0 else rules.hour_and_minutes
    if rules.numbers == "en" and 0 < int(match[2]) < 10:
        minutes = f"oh {minutes}"
    return template.format(hour=hour, minutes=minutes)


@lru_cache(4096)
def _words(digits: str, language: str, kind: str) -> str:
    from num2words import num2words

    if len(digits) > _LONGEST_FIGURE or (len(digits) > 1 and digits.startswith("0")):
        return " ".join(_words(digit, language, "cardinal") for digit in digits)
    return num2words(int(digits), lang=language, to=kind).replace(",", "").replace("-", " ")


def _speakable(character: str, rules: Language) -> bool:
    if character == ZERO_WIDTH_NON_JOINER:
        return True
    if unicodedata.category(character)[0] not in "LM":
        return False
    return not rules.scripts or unicodedata.name(character, "").startswith((*rules.scripts, "COMBINING"))


def _strongest(run: str) -> str:
    mark = max((character for character in run if character in _STRENGTH), key=_STRENGTH.index)
    return " - " if mark == "-" else f"{mark} "
