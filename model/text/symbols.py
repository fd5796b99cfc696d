"""The table of input symbols. Features and voices contain its hash: with another table they are incompatible."""

from __future__ import annotations

import hashlib
from collections import Counter

TABLE_VERSION = 2

PAD, BOS, EOS, WORD_BOUNDARY = "_", "^", "$", " "
MARKS = (",", ".", "?", "!", ";", ":", "-", "…")
"""Punctuation tokens, which carry pauses and intonation. `-` is any dash between words."""

STRESSES = ("none", "primary", "secondary")
"""The second channel of every token."""
_STRESS_MARKS = {"ˈ": 1, "ˌ": 2}
_NOTATION = frozenset((*_STRESS_MARKS, "-", '"', "'", "^"))
"""Characters that espeak-ng writes among phones but does not pronounce (stress; liaison in French and others)."""

# Phones of several characters that espeak-ng has for English (American, British, Scottish) and Persian, found in 31,000
# words of a pronouncing dictionary and all pairs of Persian letters.
_COMPOUNDS = (  # noqa: SIM905 - one line per kind reads better than fifty quoted strings
    "iː uː ɑː ɔː ɜː aː eː oː ɛː ʉː əː yː øː ɪː ʊː "  # long vowels
    "eɪ aɪ ɔɪ aʊ oʊ əʊ iə eə ʊə aɪə aɪɚ ʌʉ eʲ ɪʲ "  # diphthongs and triphthongs
    "ɑːɹ ɔːɹ ɛɹ ɪɹ ʊɹ ʌɹ əɹ ʉɹ "  # vowels before r
    "əl n̩ l̩ m̩ ɑ̃ ɔ̃ ɛ̃ "  # syllabic and nasal
    "tʃ dʒ ts dz tɕ dʑ pf ɛɪ œy"  # affricates; diphthongs across words
).split()
_LETTERS = "abcdefhijklmnopqrstuvwxyz"
_IPA = "ɡɐɑɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃᵻᵿ"
_MODIFIERS = "ːˑ̩̯̪̬̃̊ʰʲʷˠˤˀ˞"
# Added in version 2 after the symbols of version 1, which keep their ids; found in letter triples of each alphabet.
TONES = {"1": "˥", "2": "˧˥", "3": "˨˩˦", "4": "˥˩", "5": "˩"}
"""Symbols of the Mandarin tones, which follow the vowel; 5 is the neutral tone."""
_TONES = tuple(TONES.values())
_MORE_COMPOUNDS = (  # noqa: SIM905
    "ɔø ʊɐ œ̃ oɪ eʊ yʊ ʌʊ "  # diphthongs of German, French, Spanish and Dutch
    "bʲ dʲ fʲ ɡʲ kʲ ɭʲ mʲ nʲ pʲ rʲ sʲ tʲ vʲ xʲ zʲ tʃʲ dʒʲ "  # soft consonants of Russian
    "bː dː ɡː kː lː mː nː pː rː sː tː vː fː tʃː dʒː "  # long ones of Italian
    "pʰ tʰ kʰ tsʰ tɕʰ ʈʂ ʈʂʰ"  # aspirated ones of Mandarin
).split()
_EMPTY = "1"
"""A silent phone that espeak-ng's Persian has after `q`."""

SYMBOLS: tuple[str, ...] = (
    *(PAD, BOS, EOS, WORD_BOUNDARY, *MARKS),
    *(*_COMPOUNDS, *_LETTERS, *_IPA, *_MODIFIERS),
    *(*_TONES, *_MORE_COMPOUNDS),
)
NUM_SYMBOLS = len(SYMBOLS)
NUM_STRESSES = len(STRESSES)
SYMBOL_IDS = {symbol: index for index, symbol in enumerate(SYMBOLS)}
_LONGEST = max(map(len, SYMBOLS))
_FIRST_PHONE = SYMBOL_IDS[MARKS[-1]] + 1


def symbols_hash() -> str:
    """Returns the hash (16 hex digits) of the table and its version."""
    content = "\n".join((str(TABLE_VERSION), *SYMBOLS, *STRESSES))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def split_phone(phone: str, unknown: Counter[str] | None = None) -> list[tuple[int, int]]:
    """Returns (symbol id, stress) of every symbol of an espeak-ng phone; one for a phone in the table.

    Args:
        phone: IPA with stress marks, `ˈoʊ`.
        unknown: Counter to update with the characters that the table lacks.
    """
    if phone == _EMPTY:
        return []
    stress = max((_STRESS_MARKS.get(character, 0) for character in phone), default=0)
    rest = "".join(c for c in phone.replace(":", "ː").replace("g", "ɡ") if c not in _NOTATION)
    found: list[tuple[int, int]] = []
    while rest:
        for length in range(min(_LONGEST, len(rest)), 0, -1):
            symbol = SYMBOL_IDS.get(rest[:length], 0)
            if symbol >= _FIRST_PHONE:
                found.append((symbol, stress))
                break
        else:
            length = 1
            if unknown is not None:
                unknown[rest[0]] += 1
        rest = rest[length:]
    return found
