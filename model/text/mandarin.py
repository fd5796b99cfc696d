"""Mandarin: numbers in Chinese characters, and characters to phones with tones by way of pinyin.

espeak-ng is not used: it does not distinguish the first and the fourth tone, and spells syllables such as 兄 (xiong)
with English letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.text.symbols import TONES

DIGITS = "零一二三四五六七八九"
_PLACES = ("", "十", "百", "千")
_GROUPS = ("", "万", "亿", "万亿")
_MEASURES = frozenset("个只本张条位天次点块件名种家杯瓶岁辆部座份元")

_INITIALS = {
    "b": "p", "p": "pʰ", "m": "m", "f": "f", "d": "t", "t": "tʰ", "n": "n", "l": "l", "g": "k", "k": "kʰ", "h": "x",
    "j": "tɕ", "q": "tɕʰ", "x": "ɕ", "zh": "ʈʂ", "ch": "ʈʂʰ", "sh": "ʂ", "r": "ʐ", "z": "ts", "c": "tsʰ", "s": "s",
    "": "",
}  # fmt: skip
# Final -> (glide, vowel, ending); the tone follows the vowel.
_FINALS = {
    "a": ("", "a", ""), "o": ("", "o", ""), "e": ("", "ɤ", ""), "i": ("", "i", ""), "u": ("", "u", ""),
    "v": ("", "y", ""), "ai": ("", "aɪ", ""), "ei": ("", "eɪ", ""), "ao": ("", "aʊ", ""), "ou": ("", "oʊ", ""),
    "an": ("", "a", "n"), "en": ("", "ə", "n"), "ang": ("", "ɑ", "ŋ"), "eng": ("", "ə", "ŋ"), "ong": ("", "ʊ", "ŋ"),
    "er": ("", "ɚ", ""), "ia": ("j", "a", ""), "ie": ("j", "ɛ", ""), "iao": ("j", "aʊ", ""), "iou": ("j", "oʊ", ""),
    "io": ("j", "o", ""), "ian": ("j", "ɛ", "n"), "in": ("", "i", "n"), "iang": ("j", "ɑ", "ŋ"), "ing": ("", "i", "ŋ"),
    "iong": ("j", "ʊ", "ŋ"), "ua": ("w", "a", ""), "uo": ("w", "o", ""), "uai": ("w", "aɪ", ""),
    "uei": ("w", "eɪ", ""), "uan": ("w", "a", "n"), "uen": ("w", "ə", "n"), "uang": ("w", "ɑ", "ŋ"),
    "ueng": ("w", "ə", "ŋ"), "ve": ("ɥ", "ɛ", ""), "van": ("ɥ", "ɛ", "n"), "vn": ("", "y", "n"), "ê": ("", "ɛ", ""),
    "ng": ("", "ŋ", ""), "": ("", "", ""),  # hummed syllables: 嗯, 呣
}  # fmt: skip
_SIBILANTS = frozenset(("z", "c", "s", "zh", "ch", "sh", "r"))
"""Initials after which the final `i` is pronounced as [ɨ]."""
_HAN = re.compile(r"[㐀-鿿豈-﫿〇]+")
_UNPRONOUNCED = re.compile(r"[^\w\s'-]")


def cardinal(digits: str) -> str:
    """Returns a number in Chinese characters: `105` is 一百零五, `12` is 十二."""
    value = int(digits)
    if value == 0:
        return DIGITS[0]
    groups = []
    while value:
        value, group = divmod(value, 10000)
        groups.append(group)
    words = ""
    for index in range(len(groups) - 1, -1, -1):
        group = groups[index]
        if not group:
            continue
        gap = words and (group < 1000 or not groups[index + 1])
        words += (DIGITS[0] if gap else "") + _below_ten_thousand(group) + _GROUPS[index]
    return words.removeprefix("一") if words.startswith("一十") else words


def counts(before: str, after: str) -> bool:
    """Returns whether a number between these texts counts something: two of something is 两, the second is 第二."""
    return after[:1] in _MEASURES and not before.endswith("第")


def one_by_one(digits: str) -> str:
    """Returns digits read one by one, as in years and telephone numbers."""
    return "".join(DIGITS[int(digit)] for digit in digits)


def _below_ten_thousand(value: int) -> str:
    words, skipped = "", False
    for place in (3, 2, 1, 0):
        digit = value // 10**place % 10
        if digit:
            words += (DIGITS[0] if skipped and words else "") + DIGITS[digit] + _PLACES[place]
        skipped = not digit
    return words


def phone_words(text: str) -> Iterator[list[str]]:
    """Yields the phones of each syllable, and of each word in Latin letters in English; tones follow their vowel."""
    from model.text import espeak

    position = 0
    for run in _HAN.finditer(text):
        yield from espeak.phone_words(_UNPRONOUNCED.sub(" ", text[position : run.start()]), "en-us")
        yield from map(syllable, _pinyin(run[0]))
        position = run.end()
    yield from espeak.phone_words(_UNPRONOUNCED.sub(" ", text[position:]), "en-us")


def _pinyin(characters: str) -> list[str]:
    """Returns the pinyin of a run of characters, `ni2 hao3`, with readings by phrase and tone sandhi."""
    from pypinyin import Style, lazy_pinyin

    return [
        item
        for item in lazy_pinyin(
            characters, style=Style.TONE3, neutral_tone_with_five=True, tone_sandhi=True, errors="ignore"
        )
        if item[-1:] in TONES
    ]


def syllable(pinyin: str) -> list[str]:
    """Returns the phones of one syllable: `xiong1` is ɕ j ʊ ˥ ŋ."""
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    initial, final = to_initials(pinyin), to_finals(pinyin)
    glide, vowel, ending = _FINALS[final]
    if final == "i" and initial in _SIBILANTS:
        vowel = "ɨ"
    return [phone for phone in (_INITIALS[initial], glide, vowel, TONES[pinyin[-1]], ending) if phone]
