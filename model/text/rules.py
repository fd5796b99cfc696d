"""What is written out in words: patterns of a language in the order of their use, each with what is said instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

from model.text.languages import Forms, Language, language_of
from model.text.mandarin import counts
from model.text.numbers import before_noun, cardinal, one_by_one, ordinal, plural_form, year

Rule = tuple[re.Pattern, Callable[[re.Match], str]]

_HOUR, _MINUTE = r"([01]?\d|2[0-4])", r"([0-5]\d)"
_CAPITAL = "[A-ZÀ-ÖØ-ÞА-ЯЁ]"
_SCALES = (
    "hundred|thousand|million|billion|Millionen|Milliarden|Mio[.]|Mrd[.]|millones|millions?|milliards?|milioni|"
    "miliardi|miljoen|miljard|тыс[.]|млн|млрд|万|亿|میلیون|میلیارد"
)
_GERMAN_DAY = r"(?:\b([Dd](?:er|ie|as|em|en|es)|[Aa]m|[Ii]m|[Vv]om|[Zz]um|[Bb]eim)\s)?(?<![\w.])(\d{1,3})\.(?=\s"
_RUSSIAN_YEAR = {"г.": "й", "год": "й", "года": "го", "году": "м"}
_NOUGHT = {"en": "oh ", "zh": "零"}
"""Before the minutes of a time that are less than ten."""
_FIRST = {"fr": "premier", "it": "primo"}
_GREGORIAN_FROM = 1700
"""A Persian year from here on is none of the sun calendar's."""


@cache
def rules_of(name: str, figures: bool) -> tuple[Rule, ...]:
    """The rules of a language; those for figures only where a text has `figures`, for most have none."""
    return tuple(_rules(language_of(name), figures))


def _rules(rules: Language, figures: bool) -> Iterator[Rule]:
    number = _number_pattern(rules)
    figures = figures and bool(rules.numbers)
    if figures:
        yield from _dates(rules)
        yield from _times(rules)
        yield from _quantities(rules, number)
    if rules.abbreviations:
        words = "|".join(re.escape(word) for word in sorted(rules.abbreviations, key=len, reverse=True))
        yield re.compile(rf"(?<!\w)(?:{words})(?!\w)"), lambda match: rules.abbreviations[match[0]]
    initials = re.compile(rf"\b(?:{_CAPITAL}\.){{2,}}|\b{_CAPITAL}\.(?=\s+{_CAPITAL})")
    yield initials, lambda match: match[0].replace(".", "")
    if figures:
        yield from _figures(rules, number)
    if rules.symbols:
        signs = "".join(map(re.escape, rules.symbols))
        yield re.compile(f"[{signs}]"), lambda match: rules.symbols[match[0]]


def _number_pattern(rules: Language) -> str:
    """A pattern of three groups: sign, whole number, decimals."""
    group = f"[{rules.thousands}]"
    point = re.escape(rules.decimal)
    before = r"(?<![\w.])" if rules.spaced else r"(?<![0-9A-Za-z.])"
    return rf"{before}(-?)(\d{{1,3}}(?:{group}\d{{3}})+(?!\d)|\d+)(?:{point}(\d+))?"


def _dates(rules: Language) -> Iterator[Rule]:
    if not rules.months:
        return
    forms = {"-": "ymd", rules.dates[0]: rules.dates[1:]} if rules.dates[0] != "-" else {"-": rules.dates[1:]}
    orders = [("-", "ymd"), *((sign, order) for sign, order in forms.items() if (sign, order) != ("-", "ymd"))]
    for sign, order in orders:
        parts = {"y": r"(\d{4})", "m": r"(1[0-2]|0?[1-9])", "d": r"(3[01]|[12]\d|0?[1-9])"}
        pattern = re.escape(sign).join(parts[part] for part in order)
        yield (
            re.compile(rf"(?<![\w{re.escape(sign)}]){pattern}(?![\w{re.escape(sign)}])"),
            lambda match, order=order: _date(dict(zip(order, match.groups(), strict=True)), rules),
        )
    months = "|".join(rules.months)
    if rules.numbers == "en":
        yield (
            re.compile(rf"\b({months}) (\d{{1,2}})(?!\w|[,.:]\d)"),
            lambda match: f"{match[1]} {ordinal(match[2], 'en')}",
        )
    if rules.numbers == "de":
        yield re.compile(rf"{_GERMAN_DAY}(?:{months})\b)"), _german_ordinal
        yield re.compile(_GERMAN_DAY.replace(r"\s)?", r"\s)") + "[A-ZÄÖÜ])"), _german_ordinal
    if rules.numbers == "ru":
        yield re.compile(rf"(?<!\w)(\d{{1,2}})(?= (?:{months})\b)"), lambda match: ordinal(match[1], "ru", "е")
        yield re.compile(r"(?<!\w)([Вв] )?(\d{3,4}) (г\.|год[ау]?)(?!\w)"), _russian_year
    if rules.numbers == "zh":
        yield re.compile(r"(?<![\d.])\d{4}(?=年)"), lambda match: one_by_one(match[0], "zh")


def _date(parts: dict[str, str], rules: Language) -> str:
    language, day, month = rules.numbers, str(int(parts["d"])), int(parts["m"])
    if language in ("en", "fa"):
        day = ordinal(day, language)
    elif language in ("de", "ru"):
        day = ordinal(day, language, {"de": "r", "ru": "е"}[language])
    else:
        day = _FIRST.get(language) if day == "1" and language in _FIRST else cardinal(day, language)
    names = rules.months[12:] if len(rules.months) > 12 and int(parts["y"]) >= _GREGORIAN_FROM else rules.months
    if language == "zh":
        said = one_by_one(parts["y"], "zh")
    else:
        said = ordinal(parts["y"], "ru", "го") if language == "ru" else _year(parts["y"], rules)
    return rules.date.format(day=day, month=names[month - 1], year=said)


def _german_ordinal(match: re.Match) -> str:
    """An ordinal's ending follows from the word before it."""
    article = (match[1] or "").lower()
    ending = {"": "r", "der": "", "die": "", "das": ""}.get(article, "n")
    return f"{match[1]} " * bool(article) + ordinal(match[2], "de", ending)


def _russian_year(match: re.Match) -> str:
    ending = "м" if match[1] and match[3] == "г." else _RUSSIAN_YEAR[match[3]]
    noun = {"й": "год", "го": "года", "м": "году"}[ending]
    return f"{match[1] or ''}{ordinal(match[2], 'ru', ending)} {noun}"


def _times(rules: Language) -> Iterator[Rule]:
    if rules.clock:
        yield re.compile(rf"(?<!\d){_HOUR}[:.]{_MINUTE} {rules.clock}\b"), lambda match: _time(match, rules)
    if rules.numbers == "fr":
        yield re.compile(rf"(?<!\w){_HOUR} ?h ?{_MINUTE}?(?!\w)"), lambda match: _time(match, rules)
    yield re.compile(rf"(?<![\d:]){_HOUR}:{_MINUTE}(?![\d:])"), lambda match: _time(match, rules)


def _time(match: re.Match, rules: Language) -> str:
    hour, minute = str(int(match[1])), str(int(match[2] or 0))
    hours = _counted(hour, "", rules.hours, rules)
    if minute == "0":
        return rules.hour.format(hours=hours)
    hours = hours.removesuffix(" o'clock")
    minutes = (
        _counted(minute, "", rules.minutes, rules)
        if len(rules.minutes) > 1
        else rules.minutes[0].format(cardinal(minute, rules.numbers))
    )
    if int(minute) < 10 and rules.numbers in _NOUGHT:
        minutes = f"{_NOUGHT[rules.numbers]}{minutes}"
    return rules.hour_and_minutes.format(hours=hours, minutes=minutes)


def _quantities(rules: Language, number: str) -> Iterator[Rule]:
    """Amounts of money and measures: the number and its noun agree."""
    if rules.currencies:
        signs = "".join(map(re.escape, rules.currencies))
        scale = rf"(?: ?({_SCALES})(?!\w))?" if rules.spaced else "([万亿])?"
        yield re.compile(rf"([{signs}]) ?{number}{scale}"), lambda match: _amount(match[1], *match.groups()[1:], rules)
        yield (
            re.compile(rf"{number}{scale} ?([{signs}])"),
            lambda match: _amount(match[match.re.groups], *match.groups()[:-1], rules),
        )
    if rules.units:
        names = "|".join(re.escape(name) for name in sorted(rules.units, key=len, reverse=True))
        yield (
            re.compile(rf"{number} ?({names})(?!\w)"),
            lambda match: _signed(match[1], _counted(_plain(match[2]), match[3], rules.units[match[4]], rules), rules),
        )


def _amount(sign: str, minus: str, whole: str, decimals: str | None, scale: str | None, rules: Language) -> str:
    forms, digits = rules.currencies[sign], _plain(whole)
    if scale:
        gap = " " if rules.spaced else ""
        said = _decimal(digits, decimals, rules) + gap + scale
        return _signed(minus, re.sub(r"\{.?\}", said, forms[-1]), rules)
    if not (decimals and len(decimals) == 2 and rules.cents):
        return _signed(minus, _counted(digits, decimals, forms, rules), rules)
    amount = _counted(digits, None, forms, rules)
    if int(decimals) == 0:
        return _signed(minus, amount, rules)
    join, *hundredths = rules.cents
    cents = str(int(decimals))
    said = _counted(cents, None, tuple(hundredths), rules) if hundredths else cardinal(cents, rules.numbers)
    return _signed(minus, amount + join + said, rules)


def _counted(digits: str, decimals: str | None, forms: Forms, rules: Language) -> str:
    """A number with its noun."""
    language = rules.numbers
    form = forms[min(plural_form("" if decimals else digits, language, len(forms)), len(forms) - 1)]
    if decimals:
        return re.sub(r"\{.?\}", _decimal(digits, decimals, rules), form)
    if language == "zh" and form.startswith(("{}点", "{}元", "{}美", "{}公")) and digits == "2":
        return form.format("两")
    return form.format(before_noun(digits, language), n=cardinal(digits, language), f=cardinal(digits, language, True))


def _figures(rules: Language, number: str) -> Iterator[Rule]:
    language = rules.numbers
    if rules.between:
        yield re.compile(r"(?<=\d)–(?=\d)"), lambda match: f" {rules.between} " if rules.spaced else rules.between
    if rules.ordinal:
        group = f"[{rules.thousands}]"
        pattern = rf"(?<![\w.])(\d+(?:{group}\d{{3}})*)({rules.ordinal})(?!\w)"
        yield re.compile(pattern), lambda match: ordinal(_plain(match[1]), language, match[match.re.groups])
    if language == "en":
        decade = re.compile(r"(?<![\w.])(1[1-9]\d0|20[1-9]0)'?s\b")
        yield decade, lambda match: re.sub("y$", "ie", year(match[1], "en")) + "s"
    yield re.compile(number), lambda match: _figure(match, rules)
    yield re.compile(r"\d+"), lambda match: cardinal(match[0], language)


def _figure(match: re.Match, rules: Language) -> str:
    sign, whole, decimals = match.groups()
    before, after = match.string[: match.start()], match.string[match.end() :]
    if rules.numbers == "zh" and whole == "2" and not decimals and counts(before, after):
        return _signed(sign, "两", rules)
    said = _year(whole, rules) if not (sign or decimals) else _decimal(_plain(whole), decimals, rules)
    return _signed(sign, said, rules)


def _year(digits: str, rules: Language) -> str:
    """A number of four figures as a year, where the language reads years in another way than numbers."""
    plain = digits.isdecimal() and len(digits) == 4
    if rules.years and plain and 1100 <= int(digits) <= 2099 and not 2000 <= int(digits) <= 2009:
        return year(digits, rules.numbers)
    return cardinal(_plain(digits), rules.numbers)


def _decimal(digits: str, decimals: str | None, rules: Language) -> str:
    if not decimals:
        return cardinal(digits, rules.numbers)
    gap = " " if rules.spaced else ""
    return gap.join((cardinal(digits, rules.numbers), rules.point, one_by_one(decimals, rules.numbers)))


def _signed(minus: str, words: str, rules: Language) -> str:
    return f"{rules.minus}{' ' if rules.spaced else ''}{words}" if minus else words


def _plain(digits: str) -> str:
    """A number without the signs between its groups."""
    return re.sub(r"\D", "", digits)
