"""Rules of text normalization: the patterns of a language in order, each with a function to its words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial

from model.text.fractions import COMMON_DENOMINATORS, fraction
from model.text.languages import Forms, Language, language_of
from model.text.mandarin import counts
from model.text.numbers import before_noun, cardinal, one_by_one, ordinal, plural_form, year

Match = re.Match[str]
Rule = tuple[re.Pattern[str], Callable[[Match], str]]

_HOUR, _MINUTE = r"([01]?\d|2[0-4])", r"([0-5]\d)"
_CAPITAL = "[A-ZÀ-ÖØ-ÞА-ЯЁ]"
_SCALES = (
    "hundred|thousand|million|billion|Millionen|Milliarden|Mio[.]|Mrd[.]|millones|millions?|milliards?|milioni|"
    "miliardi|miljoen|miljard|тыс[.]|млн|млрд|万|亿|میلیون|میلیارد"
)
_GERMAN_DAY = r"(?:\b([Dd](?:er|ie|as|em|en|es)|[Aa]m|[Ii]m|[Vv]om|[Zz]um|[Bb]eim)\s)?(?<![\w.])(\d{1,3})\.(?=\s"
_RUSSIAN_YEAR = {"г.": "й", "год": "й", "года": "го", "году": "м"}
_LEADING_ZERO = {"en": "oh ", "zh": "零"}
"""Words before the minutes of a time that are less than ten."""
_NUMERIC_SIGNS = "<>~"
"""Signs with a meaning before a number or between two; elsewhere they are markup."""
_HALF_DAY = {"a": " ay em", "p": " pea em"}
_FIRST = {"fr": "premier", "it": "primo"}
_GREGORIAN_FROM = 1700
"""First year that is Gregorian in a Persian date, not of the solar calendar."""


@cache
def rules_of(name: str, has_digits: bool) -> tuple[Rule, ...]:
    """Returns the rules of a language, without those for digits where a text has none."""
    return tuple(_rules(language_of(name), has_digits))


def _rules(rules: Language, has_digits: bool) -> Iterator[Rule]:
    number = _number_pattern(rules)
    numeric = has_digits and bool(rules.numbers)
    if rules.symbols:
        between = r"[<>](?<![^\s\w)][<>])(?=\s?[\w-])(?![^\s\d]*>)|~(?=\s?\d)"
        yield re.compile(between), lambda match: f"{rules.symbols[match[0]]} "
    if numeric:
        yield from _short_months(rules)
        yield from _dates(rules)
        yield from _fractions(rules)
        yield from _ranges(rules)
        yield from _times(rules)
        yield from _quantities(rules, number)
    if rules.abbreviations:
        words = "|".join(re.escape(word) for word in sorted(rules.abbreviations, key=len, reverse=True))
        starts = "".join(sorted({re.escape(word[0]) for word in rules.abbreviations}))  # rejects most positions at once
        yield (
            re.compile(rf"\b(?=[{starts}])(?<!\w\.)(?:{words})(?!\w)"),
            lambda match: rules.abbreviations[match[0]],
        )
    initials = re.compile(rf"\b(?:{_CAPITAL}\.){{2,}}|\b{_CAPITAL}\.(?=\s+{_CAPITAL})")
    yield initials, lambda match: match[0].replace(".", "")
    if numeric:
        yield from _plain_numbers(rules, number)
    if rules.symbols:
        signs = "".join(re.escape(sign) for sign in rules.symbols if sign not in _NUMERIC_SIGNS)
        yield re.compile(f"[{signs}]"), lambda match: rules.symbols[match[0]]


def _number_pattern(rules: Language) -> str:
    """Returns a pattern of three groups: sign, whole number, decimals."""
    signs = [re.escape(sign) for sign in f"{rules.thousands}'" if sign != " "]
    groups = [rf"\d{{1,3}}(?:{sign}\d{{3}})+(?!\d)" for sign in signs]
    groups.append(r"(?<!\d )[1-9]\d{0,2}(?: \d{3})+(?! ?\d)")
    if "," in rules.thousands:
        groups.append(r"\d{1,2}(?:,\d{2})+,\d{3}(?!\d)")  # lakhs and crores
    point = re.escape(rules.decimal)
    before = r"(?<![\w.])" if rules.spaced else r"(?<![0-9A-Za-z.])"
    return rf"{before}(-?)({'|'.join(groups)}|\d+)(?:{point}(\d+))?"


def _short_months(rules: Language) -> Iterator[Rule]:
    """Yields the rule for abbreviated months beside a number, in English also without full stop."""
    if not rules.short_months:
        return
    names = "|".join(sorted(rules.short_months, key=len, reverse=True))
    stop = r"\.?" if rules.numbers == "en" else r"\."
    pattern = rf"(?<!\w)(?:({names}){stop}(?= \d)|(?<=\d )({names}){stop}(?!\w)|(?<=\d\. )({names}){stop}(?!\w))"
    yield re.compile(pattern), lambda match: rules.short_months[next(filter(None, match.groups()))]


def _fractions(rules: Language) -> Iterator[Rule]:
    """Yields the rule for proper fractions with common denominators, also after a whole number or before a unit."""
    units = "|".join(re.escape(name) for name in sorted(rules.units, key=len, reverse=True) if name[0] not in "%٪")
    unit = rf"(?: ?({units})(?!\w))?" if units else "()"
    pattern = rf"(?<![\w/.,:⁄])(-?)(?:(\d{{1,3}}) )?(\d{{1,3}})([/⁄])(\d{{1,3}})(?![/⁄.,:]?\d){unit}"
    yield re.compile(pattern), lambda match: _fraction(match, rules)


def _fraction(match: Match, rules: Language) -> str:
    minus, whole, numerator, sign, denominator, unit = match.groups()
    proper = 0 < int(numerator) < int(denominator) and int(denominator) in COMMON_DENOMINATORS
    if not (proper or (sign == "⁄" and int(numerator) and int(denominator) > 1)) or numerator[0] == "0":
        return match[0].replace("⁄", "/")
    words = fraction(numerator, denominator, rules.numbers)
    if whole:
        gap = " " if rules.spaced else ""
        words = gap.join((cardinal(whole, rules.numbers), rules.whole_and, words))
    if unit:
        forms = rules.units[unit]
        form = forms[0] if len(forms) == 1 or (numerator == "1" and not whole) else forms[1]
        words = re.sub(r"\{.?\}", words, form)
    return _signed(minus, words, rules)


def _ranges(rules: Language) -> Iterator[Rule]:
    """Yields the rule for ranges, two increasing numbers: `10-20`, `$5-10`, `10:30-11:15`, `1998-99`."""
    if not rules.between:
        return
    signs = "".join(map(re.escape, rules.currencies))
    number = r"\d+(?:[.,:']\d+)*"
    pattern = rf"(?<![\w.,:/'-])([{signs}]?)({number})([%٪]?)([-–])([{signs}]?)({number})(?![.,:/–-]?\d|'\d)"
    yield re.compile(pattern), lambda match: _range(match, rules)


def _range(match: Match, rules: Language) -> str:
    currency, low, percent, dash, other, high = match.groups()
    if dash == "-" and not _is_range(low, high, rules):
        return match[0]
    if currency and not other:  # the noun is spoken once, after the second number
        currency, other = "", currency
    gap = " " if rules.spaced else ""
    return f"{currency}{low}{percent}{gap}{rules.between}{gap}{other}{high}"


def _is_range(low: str, high: str, rules: Language) -> bool:
    """Returns whether a hyphen between two numbers makes a range rather than a telephone number or a code."""
    if ":" in low or ":" in high:
        return low.count(":") == high.count(":") == 1 and len(low.split(":")[0]) < 3
    if any(len(number) > 1 and number[0] == "0" and number.isdecimal() for number in (low, high)):
        return False
    if low.isdecimal() and high.isdecimal():
        if (len(low), len(high)) == (3, 4):
            return False
        if (len(low), len(high)) == (4, 2):
            return int(low[2:]) < int(high) and 1000 <= int(low) < 2100
    values = [number.replace("'", "") for number in (low, high)]
    for sign in rules.thousands:
        values = [re.sub(rf"{re.escape(sign)}(?=\d{{3}}(?!\d))", "", value) for value in values]
    try:
        first, second = (float(value.replace(rules.decimal, ".").replace(",", ".")) for value in values)
    except ValueError:
        return False
    return first < second


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
            partial(_ordered_date, order=order, rules=rules),
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


def _ordered_date(match: Match, order: str, rules: Language) -> str:
    return _date(dict(zip(order, match.groups(), strict=True)), rules)


def _date(parts: dict[str, str], rules: Language) -> str:
    language, number, month = rules.numbers, str(int(parts["d"])), int(parts["m"])
    if language in ("en", "fa"):
        day = ordinal(number, language)
    elif language in ("de", "ru"):
        day = ordinal(number, language, {"de": "r", "ru": "е"}[language])
    else:
        day = _FIRST[language] if number == "1" and language in _FIRST else cardinal(number, language)
    names = rules.months[12:] if len(rules.months) > 12 and int(parts["y"]) >= _GREGORIAN_FROM else rules.months
    if language == "zh":
        words = one_by_one(parts["y"], "zh")
    else:
        words = ordinal(parts["y"], "ru", "го") if language == "ru" else _year(parts["y"], rules)
    return rules.date.format(day=day, month=names[month - 1], year=words)


def _german_ordinal(match: Match) -> str:
    """Returns a German ordinal, whose ending depends on the word before it."""
    article = (match[1] or "").lower()
    ending = {"": "r", "der": "", "die": "", "das": ""}.get(article, "n")
    return f"{match[1]} " * bool(article) + ordinal(match[2], "de", ending)


def _russian_year(match: Match) -> str:
    ending = "м" if match[1] and match[3] == "г." else _RUSSIAN_YEAR[match[3]]
    noun = {"й": "год", "го": "года", "м": "году"}[ending]
    return f"{match[1] or ''}{ordinal(match[2], 'ru', ending)} {noun}"


def _times(rules: Language) -> Iterator[Rule]:
    if rules.numbers == "en":
        yield re.compile(r"(?<=\d) ?([AaPp])\.?[Mm](?!\w)\.?"), lambda match: _HALF_DAY[match[1].lower()]
    if rules.clock:
        yield re.compile(rf"(?<!\d){_HOUR}[:.]{_MINUTE} {rules.clock}\b"), lambda match: _time(match, rules)
    if rules.numbers == "fr":
        yield re.compile(rf"(?<!\w){_HOUR} ?h ?{_MINUTE}?(?!\w)"), lambda match: _time(match, rules)
    clock = rf"(?: {rules.clock}\b)?" if rules.clock else ""
    if rules.seconds:
        pattern = rf"(?<![\d:]){_HOUR}:{_MINUTE}:{_MINUTE}(?![\d:]){clock}"
        yield re.compile(pattern), lambda match: _time_with_seconds(match, rules)
    yield re.compile(rf"(?<![\d:]){_HOUR}:{_MINUTE}(?![\d:])"), lambda match: _time(match, rules)


def _time(match: Match, rules: Language) -> str:
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
    if int(minute) < 10 and rules.numbers in _LEADING_ZERO:
        minutes = f"{_LEADING_ZERO[rules.numbers]}{minutes}"
    return rules.hour_and_minutes.format(hours=hours, minutes=minutes)


def _time_with_seconds(match: Match, rules: Language) -> str:
    second = str(int(match[3]))
    if second == "0":
        return _time(match, rules)
    gap = " " if rules.spaced else ""
    return _time(match, rules) + gap + _counted(second, "", rules.seconds, rules)


def _quantities(rules: Language, number: str) -> Iterator[Rule]:
    """Yields the rules for money and units, whose nouns agree with the number."""
    if rules.currencies:
        signs = "".join(map(re.escape, rules.currencies))
        letters = "|".join(sorted(rules.scales, key=len, reverse=True))
        scale = rf"((?: ?(?:{_SCALES})|{letters})(?!\w))?" if rules.spaced else f"([万亿]|(?:{letters})(?![A-Za-z]))?"
        yield re.compile(rf"([{signs}]) ?{number}{scale}"), lambda match: _amount(rules, match[1], *match.groups()[1:])
        yield (
            re.compile(rf"{number}{scale} ?([{signs}])"),
            lambda match: _amount(rules, match[match.re.groups], *match.groups()[:-1]),
        )
    if rules.units:
        names = "|".join(re.escape(name) for name in sorted(rules.units, key=len, reverse=True))
        yield (
            re.compile(rf"{number} ?({names})(?!\w)"),
            lambda match: _signed(match[1], _counted(_plain(match[2]), match[3], rules.units[match[4]], rules), rules),
        )


def _amount(rules: Language, sign: str, minus: str, whole: str, decimals: str | None, scale: str | None) -> str:
    """Returns an amount of money in words, such as `three dollars fifty` or `three point five million dollars`."""
    forms, digits = rules.currencies[sign], _plain(whole)
    if scale:
        gap = " " if rules.spaced else ""
        words = _decimal(digits, decimals, rules) + gap + rules.scales.get(scale, scale.strip())
        amount = re.sub(r"\{.?\}", words, forms[-1])
        return _signed(minus, re.sub(r"\bde (?=euro)", "d'", amount) if rules.numbers == "fr" else amount, rules)
    if not (decimals and len(decimals) == 2 and rules.cents):
        return _signed(minus, _counted(digits, decimals, forms, rules), rules)
    amount = _counted(digits, None, forms, rules)
    if int(decimals) == 0:
        return _signed(minus, amount, rules)
    join, *hundredths = rules.cents
    cents = str(int(decimals))
    words = _counted(cents, None, tuple(hundredths), rules) if hundredths else cardinal(cents, rules.numbers)
    return _signed(minus, amount + join + words, rules)


def _counted(digits: str, decimals: str | None, forms: Forms, rules: Language) -> str:
    """Returns a number with its noun in words."""
    language = rules.numbers
    form = forms[min(plural_form("" if decimals else digits, language, len(forms)), len(forms) - 1)]
    if decimals:
        return re.sub(r"\{.?\}", _decimal(digits, decimals, rules), form)
    if language == "zh" and form.startswith(("{}点", "{}元", "{}美", "{}公")) and digits == "2":
        return form.format("两")
    return form.format(before_noun(digits, language), n=cardinal(digits, language), f=cardinal(digits, language, True))


def _plain_numbers(rules: Language, number: str) -> Iterator[Rule]:
    """Yields the rules for ordinals, decades and all other numbers."""
    language = rules.numbers
    if rules.ordinal:
        group = f"[{rules.thousands}]"
        pattern = rf"(?<![\w.])(\d+(?:{group}\d{{3}})*)({rules.ordinal})(?!\w)"
        yield re.compile(pattern), lambda match: ordinal(_plain(match[1]), language, match[match.re.groups])
    if language == "en":
        decade = re.compile(r"(?<![\w.])(1[1-9]\d0|20[1-9]0)'?s\b")
        yield decade, lambda match: re.sub("y$", "ie", year(match[1], "en")) + "s"
    yield re.compile(number), lambda match: _number(match, rules)
    yield re.compile(r"\d+"), lambda match: cardinal(match[0], language)


def _number(match: Match, rules: Language) -> str:
    sign, whole, decimals = match.groups()
    before, after = match.string[max(match.start() - 1, 0) : match.start()], match.string[match.end() : match.end() + 1]
    if rules.numbers == "zh" and whole == "2" and not decimals and counts(before, after):
        return _signed(sign, "两", rules)
    words = _year(whole, rules) if not (sign or decimals) else _decimal(_plain(whole), decimals, rules)
    return _signed(sign, words, rules)


def _year(digits: str, rules: Language) -> str:
    """Returns a number in words, read as a year if it has four digits and the language reads years differently."""
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
    """Returns a number without the signs between its groups."""
    return re.sub(r"\D", "", digits)
