"""What each language needs besides its espeak-ng voice: letters, abbreviations, symbols and numbers, as data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Language:
    """How a language is written and read.

    Attributes:
        voice: espeak-ng voice that speaks it.
        scripts: Prefixes of the Unicode names of its letters; empty accepts every letter.
        letters: Spelling variants -> the letter that espeak-ng knows.
        abbreviations: Abbreviation (with its full stop) -> words.
        symbols: Sign -> words.
        currencies: Sign before an amount -> (singular, plural).
        numbers: Language of num2words; empty leaves figures to espeak-ng.
        point: Word between a whole number and its decimals.
        minus: Word before a negative number.
        ordinal: Pattern of the suffix that makes a figure an ordinal.
        years: Whether 1100 to 1999 are read in pairs.
        hour, hour_and_minutes: Templates of a time of day.
    """

    voice: str
    scripts: tuple[str, ...] = ()
    letters: dict[str, str] = field(default_factory=dict)
    abbreviations: dict[str, str] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)
    currencies: dict[str, tuple[str, str]] = field(default_factory=dict)
    numbers: str = ""
    point: str = ""
    minus: str = ""
    ordinal: str = ""
    years: bool = False
    hour: str = "{hour}"
    hour_and_minutes: str = "{hour} {minutes}"


def _english(voice: str) -> Language:
    return Language(
        voice=voice,
        scripts=("LATIN",),
        abbreviations={
            "Mr.": "Mister", "Mrs.": "Missis", "Ms.": "Miss", "Dr.": "Doctor", "Prof.": "Professor",
            "St.": "Saint", "Co.": "Company", "Jr.": "Junior", "Sr.": "Senior", "Maj.": "Major", "Gen.": "General",
            "Capt.": "Captain", "Lt.": "Lieutenant", "Col.": "Colonel", "Sgt.": "Sergeant", "Rev.": "Reverend",
            "Hon.": "Honorable", "Ltd.": "Limited", "Esq.": "Esquire", "vs.": "versus", "etc.": "et cetera",
            "e.g.": "for example", "i.e.": "that is",
            "a.m.": "ay em", "p.m.": "pea em",  # spelt so that the lone A is no article
        },
        symbols={"&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "°": "degrees", "#": "number"},
        currencies={"$": ("dollar", "dollars"), "£": ("pound", "pounds"), "€": ("euro", "euros")},
        numbers="en",
        point="point",
        minus="minus",
        ordinal="st|nd|rd|th",
        years=True,
        hour="{hour} o'clock",
    )  # fmt: skip


LANGUAGES: dict[str, Language] = {
    "en": _english("en-us"),
    "en-us": _english("en-us"),
    "en-gb": _english("en"),
    "zh": Language(voice="cmn"),
    "fa": Language(
        voice="fa",
        scripts=("ARABIC", "LATIN"),
        letters={
            "ي": "ی", "ى": "ی", "ك": "ک", "ة": "ه", "ۀ": "ه‌ی", "هٔ": "ه‌ی", "أ": "ا", "إ": "ا", "ٱ": "ا", "ـ": "",
        },
        symbols={"&": "و", "%": "درصد", "٪": "درصد", "+": "به علاوه", "=": "مساوی", "@": "ات", "°": "درجه"},
        currencies={"$": ("دلار", "دلار"), "£": ("پوند", "پوند"), "€": ("یورو", "یورو")},
        numbers="fa",
        point="ممیز",
        minus="منفی",
        ordinal="ام|م",
        hour_and_minutes="{hour} و {minutes} دقیقه",
    ),
}  # fmt: skip


def language_of(name: str) -> Language:
    """The language of this name; any other espeak-ng voice is taken as a language without rules of its own."""
    return LANGUAGES.get(name) or Language(voice=name)


def code_of(locale: str) -> str:
    """The language of a locale as corpora write it: `zh-CN` and `zh_TW` are `zh`, `en-GB` is `en-gb`."""
    name = locale.strip().replace("_", "-").lower()
    return name if name in LANGUAGES else name.partition("-")[0]
