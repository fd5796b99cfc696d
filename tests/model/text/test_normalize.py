"""Written text to spoken words, by language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.text.normalize import normalize
from model.text.symbols import MARKS


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("In 1984 it was 1,234.", "In nineteen eighty four it was one thousand two hundred and thirty four."),
        ("It costs $3.50 or $1.", "It costs three point five zero dollars or one dollar."),
        ("It cost $2 million.", "It cost two million dollars."),
        ("Dr. Smith and Mrs. Jones", "Doctor Smith and Missis Jones"),
        ("50% of 21st & 3rd", "fifty percent of twenty first and third"),
        ("at 10:30, 5:00 and 7:05", "at ten thirty, five o'clock and seven oh five"),
        ("agent 007 at -3", "agent zero zero seven at minus three"),
        ("the 1990s", "the nineteen nineties"),
        ("H.M.S. Bounty", "HMS Bounty"),
        ("well-known -- yes—no", "well-known - yes - no"),
        ("“Don’t,” he said.", "Don't, he said."),
        ("one,two", "one, two"),
        ("1111222233334444", "one " * 4 + "two " * 4 + "three " * 4 + "four four four four"),
    ],
)
def test_english(text, spoken):
    assert normalize(text, "en").text == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("۲۵ كتاب", "بیست و پنج کتاب"),
        ("٣ روز", "سه روز"),
        ("۲٫۵ متر", "دو ممیز پنج متر"),
        ("۱٬۰۰۰ تومان", "هزار تومان"),
        ("۵۰٪؟", "پنجاه درصد?"),
        ("علي، بيا!", "علی, بیا!"),
        ("می‌روم", "می‌روم"),
        ("ساعت ۱۰:۳۰", "ساعت ده و سی دقیقه"),
        ("کتـــاب", "کتاب"),
    ],
)
def test_persian(text, spoken):
    assert normalize(text, "fa").text == spoken


def test_what_was_written_out_is_told():
    assert ("Dr.", "Doctor") in normalize("Dr. No has 2.", "en").changes


def test_languages_without_rules_leave_figures_to_espeak():
    assert normalize("25 Äpfel", "de").text == "25 Äpfel"


@given(st.text(max_size=60), st.sampled_from(["en", "fa", "de"]))
def test_any_text_ends_in_words_and_known_marks(text, language):
    result = normalize(text, language)
    assert result.text == " ".join(result.text.split())
    assert not result.text.startswith(tuple(MARKS))
    assert not set(result.text) & set(result.unknown)
    assert normalize(text, language).text == result.text
