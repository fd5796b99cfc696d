"""Written text to spoken words, by language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.text.normalize import normalize
from model.text.symbols import MARKS


def test_figures_too_long_for_a_number_are_read_one_by_one():
    assert normalize("1111222233334444", "en").text == "one " * 4 + "two " * 4 + "three " * 4 + "four four four four"


@pytest.mark.parametrize("language", ["en", "fa", "de", "es", "fr", "it", "nl", "ru", "zh"])
@given(st.text("0123456789.,:/-–% €$kmº", max_size=24))
def test_no_figure_is_left_to_espeak(language, text):
    assert not any(character.isdigit() for character in normalize(text, language).text)


def test_changes_are_recorded():
    assert ("Dr.", "Doctor") in normalize("Dr. No has 2.", "en").changes


def test_languages_without_rules_leave_figures_to_espeak():
    assert normalize("25 äpplen", "sv").text == "25 äpplen"


@given(st.text(max_size=60), st.sampled_from(["en", "fa", "de", "es", "fr", "it", "nl", "ru", "zh", "sv"]))
def test_any_text_ends_in_words_and_known_marks(text, language):
    result = normalize(text, language)
    assert result.text == " ".join(result.text.split())
    assert not result.text.startswith(tuple(MARKS))
    assert not set(result.text) & set(result.unknown)
    assert normalize(text, language).text == result.text
