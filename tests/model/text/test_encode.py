"""Text to tokens: known phones, stress in a second channel, punctuation kept, unknown characters counted."""

import threading

import numpy as np
import pytest

from model.corpus.sentences import read_sentences
from model.errors import TextError
from model.text.encode import encode
from model.text.espeak import phone_words, speak
from model.text.symbols import (
    BOS,
    EOS,
    MARKS,
    NUM_STRESSES,
    NUM_SYMBOLS,
    PAD,
    SYMBOL_IDS,
    SYMBOLS,
    WORD_BOUNDARY,
    split_phone,
    symbols_hash,
)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The judge gave him one chair.", "en", "ð ə | dʒ ʌ dʒ | ɡ eɪ v | h ɪ m | w ʌ n | tʃ ɛɹ ."),
        ("Hello, world! Why?", "en", "h ə l oʊ , w ɜː l d ! w aɪ ?"),
        ("سلام، حال شما چطور است؟", "fa", "s a l ɑ m , h ɑ l | ʃ o m ɑ | tʃ e t o r | a s t ?"),
        ("کتاب روی میز است.", "fa", "k e t ɑ b | r u j e | m i z | a s t ."),
    ],
)
def test_known_sentences_give_known_phones(text, language, expected):
    phones = encode(text, language).phones
    assert phones == [BOS, *(WORD_BOUNDARY if phone == "|" else phone for phone in expected.split()), EOS]


def test_stress_is_a_second_channel_on_vowels_only():
    tokens = encode("Hello, understand me.", "en")
    stressed = {tokens.phones[i]: int(stress) for i, stress in enumerate(tokens.ids[:, 1]) if stress}
    assert stressed["oʊ"] == 1
    assert set(stressed.values()) <= set(range(NUM_STRESSES))
    assert 2 in stressed.values()
    assert not set(stressed) & {BOS, EOS, WORD_BOUNDARY, *MARKS, "l", "d"}
    assert not any("ˈ" in symbol or "ˌ" in symbol for symbol in SYMBOLS)


def test_every_kind_of_mark_is_kept_in_place():
    phones = encode("one, two. three? four! five; six: seven - eight… nine", "en").phones
    assert [phone for phone in phones if phone in MARKS] == list(MARKS)


def test_several_marks_in_a_row_become_the_strongest():
    assert [p for p in encode('What?! No... (Yes), "well."', "en").phones if p in MARKS] == ["?", "…", ",", "."]


def test_unknown_characters_are_counted():
    tokens = encode("a ☃ and 漢字 and 漢", "en")
    assert tokens.unknown == {"☃": 1, "漢": 2, "字": 1}
    assert encode("plain words", "en").unknown == {}


def test_unknown_phone_characters_are_counted():
    from collections import Counter

    unknown = Counter()
    assert split_phone("aǂ\u2603", unknown) == [(SYMBOL_IDS["a"], 0), (SYMBOL_IDS["ǂ"], 0)]
    assert unknown == {"\u2603": 1}


@pytest.mark.parametrize("language", ["en", "fa"])
def test_every_symbol_of_the_sentence_lists_is_in_the_table(language):
    for sentence in read_sentences("", language):
        tokens = encode(sentence, language)
        assert not tokens.unknown, sentence
        assert tokens.ids.min() >= 0
        assert tokens.ids[:, 0].max() < NUM_SYMBOLS
        assert tokens.phones == [SYMBOLS[i] for i in tokens.ids[:, 0]]
        whole = {"ˈ", "ˌ", *"0123456789()"}
        assert not whole & set("".join(tokens.phones))


@pytest.mark.parametrize("language", ["en", "fa"])
def test_phones_of_both_languages_stay_whole(language):
    """No phone that espeak-ng gives for the shipped sentences is split into characters."""
    for sentence in read_sentences("", language)[:60]:
        for word in phone_words(sentence.strip(".?!"), {"en": "en-us", "fa": "fa"}[language]):
            for phone in word:
                assert len(split_phone(phone)) == (0 if phone == "1" else 1), phone


def test_table_has_unique_symbols_and_padding_first():
    assert len(set(SYMBOLS)) == NUM_SYMBOLS
    assert SYMBOL_IDS[PAD] == 0


def test_hash_of_the_table_is_stable():
    assert symbols_hash() == symbols_hash()
    assert symbols_hash() == "e40adef559ff3b5d", "the table changed: raise TABLE_VERSION, old voices no longer fit"


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [("", "en", "empty"), (" \n", "en", "empty"), ("...", "en", "spoken"), ("漢字", "en", "spoken"), ("x", "zz", "zz")],
)
def test_text_that_cannot_be_spoken_is_an_error(text, language, message):
    with pytest.raises(TextError, match=message):
        encode(text, language)


def test_language_switches_leave_no_flags():
    phones = "".join(encode("من با Whisper کار می‌کنم.", "fa").phones)
    assert "(" not in phones
    assert "wɪsp" in phones


def test_threads_get_the_same_tokens_as_one_after_another():
    jobs = [("The old clock has stopped.", "en"), ("امروز هوا خیلی خوب است.", "fa")] * 20
    expected = [encode(*job).ids for job in jobs]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i, job=job: found.update({i: encode(*job).ids})) for i, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], ids) for i, ids in enumerate(expected))


def test_speech_is_bit_equal_whatever_was_said_before():
    first, rate, timings = speak("The old clock has stopped.", "en-us+f2")
    speak("something else entirely", "fa")
    encode("and some phones", "en")
    again, _, same = speak("The old clock has stopped.", "en-us+f2")
    assert np.array_equal(first, again)
    assert timings == same
    assert rate == 22050
    assert np.abs(first).max() > 0.05


def test_phone_times_are_ordered_and_within_the_sound():
    samples, rate, timings = speak("Hello, my chair is over there.", "en-us")
    edges = np.array([(start, end) for _, start, end in timings])
    assert (edges[:, 1] >= edges[:, 0]).all()
    assert (edges[1:, 0] >= edges[:-1, 1] - 1e-9).all()
    assert edges[-1, 1] <= len(samples) / rate
    assert "".join(phone for phone, _, _ in timings).startswith("həlˈoʊ")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Die Sonne scheint heute über den Bäumen."),
        ("fr", "Il est allé à l'école avec ses amis."),
        ("es", "El niño corre por la calle."),
        ("it", "La ragazza beve un bicchiere d'acqua."),
        ("nl", "De kinderen spelen buiten in de tuin."),
        ("ru", "Сегодня очень хорошая погода."),
        ("sv", "Solen skiner över träden."),
    ],
)
def test_sentences_of_other_languages_are_spoken_without_loss(language, text):
    tokens = encode(text, language)
    assert not tokens.unknown
    assert len(tokens.phones) > 10


def test_mandarin_syllables_keep_their_tones_apart():
    said = [encode(character, "zh").phones[1:-1] for character in "妈麻马骂"]
    assert said == [["m", "a", tone] for tone in ("˥", "˧˥", "˨˩˦", "˥˩")]
    tokens = encode("今天天气很好，兄弟。", "zh")
    assert not tokens.unknown
    assert [phone for phone in tokens.phones if phone in MARKS] == [",", "."]


def test_latin_words_in_mandarin_are_said_as_english():
    phones = "".join(encode("我用Python。", "zh").phones)
    assert "paɪθ" in phones


ALPHABETS = {
    "de": "abcdefghijklmnopqrstuvwxyzäöüß", "es": "abcdefghijlmnopqrstuvxyzáéíóúñü",
    "fr": "abcdefghijlmnopqrstuvxyzàâçéèêëîïôùûœ", "it": "abcdefghilmnopqrstuvzàèéìòù",
    "nl": "abcdefghijklmnopqrstuvwxyzëï", "ru": "абвгдежзийклмнопрстуфхцчшщъыьэюяё",
}  # fmt: skip


@pytest.mark.parametrize("language", ALPHABETS)
def test_no_pair_of_letters_gives_a_phone_outside_the_table(language):
    letters = ALPHABETS[language]
    for first in letters:
        unknown = encode(" ".join(f"{first}{second}a a{first}{second}" for second in letters), language).unknown
        assert not unknown, first


def test_every_syllable_of_mandarin_has_phones_and_its_tone():
    from pypinyin import Style, lazy_pinyin
    from pypinyin.pinyin_dict import pinyin_dict

    from model.text.mandarin import TONES, syllable

    found = {lazy_pinyin(chr(c), style=Style.TONE3, neutral_tone_with_five=True)[0] for c in pinyin_dict}
    syllables = {item for item in found if item[-1] in TONES}
    assert len(syllables) > 1200
    for item in syllables:
        phones = syllable(item)
        assert all(len(split_phone(phone)) == 1 for phone in phones), item
        assert phones.count(TONES[item[-1]]) == 1, item


def test_symbols_of_the_first_table_keep_their_ids():
    assert (SYMBOL_IDS["iː"], SYMBOL_IDS["a"], SYMBOL_IDS["ɡ"], SYMBOL_IDS["˞"]) == (12, 65, 90, 192)
