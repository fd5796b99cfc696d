"""Signs and markup in texts: unspeakable characters are counted, no sign is misread, white space costs little time."""

import time
import unicodedata

import pytest

from model.text.encode import encode
from model.text.normalize import normalize

RULED = ("en", "fa", "de", "es", "fr", "it", "nl", "ru", "zh")


@pytest.mark.parametrize("language", RULED)
@pytest.mark.parametrize("sign", list("×÷±≥≤≠≈∞√‰²³→"))
def test_a_sign_of_arithmetic_is_spoken_in_every_language(language, sign):
    result = normalize(f"5 {sign} 3", language)
    assert not result.unknown
    without = normalize("5 3", language).text
    assert len(result.text.replace(" ", "")) > len(without.replace(" ", ""))


@pytest.mark.parametrize("language", RULED)
@pytest.mark.parametrize("written", ["1/2", "1/3", "2/3", "1/4", "3/4", "5/8", "½", "¾", "⅔", "2 1/2", "2½"])
def test_a_fraction_is_no_row_of_numbers(language, written):
    result = normalize(written, language)
    assert not result.unknown
    plain = normalize(unicodedata.normalize("NFKC", written).replace("⁄", " ").replace("/", " "), language).text
    assert result.text != plain
    assert not any(character.isnumeric() for character in result.text if not "一" <= character <= "鿿")


@pytest.mark.parametrize("written", ["24/7", "9/11", "1/2/3", "7/4/1776", "3/0", "0/3", "a/b"])
def test_other_slashes_make_no_fraction(written):
    assert not any(part in normalize(written, "en").text for part in ("half", "third", "elevenths", "sevenths"))


@pytest.mark.parametrize("written", ["555-1234", "3-2", "007-010", "1-2-3", "2024-03", "F-16", "978-3-16"])
def test_a_hyphen_between_other_figures_makes_no_range(written):
    assert " to " not in f" {normalize(written, 'en').text} "


@pytest.mark.parametrize("sign", ["|", "\\", "~", "*", "_", "^", "☃", "™", "¹", "€"])
def test_what_cannot_be_spoken_is_counted(sign):
    result = normalize(f"one {sign} two", "en")
    assert result.unknown == {sign: 1}
    assert result.text == "one two"


def test_marks_of_emphasis_are_no_signs():
    result = normalize("This is *very* and __really__ snake_case.", "en")
    assert result.text == "This is very and really snake case."
    assert not result.unknown


def test_markup_is_not_read_as_a_comparison():
    result = normalize("<b>bold</b>", "en")
    assert "than" not in result.text
    assert result.unknown == {"<": 2, ">": 2}


@pytest.mark.parametrize(
    "written",
    ["1234567", "1,234,567", "1 234 567", "1'234'567", "1’234’567", "1\u00a0234\u00a0567"],
)
def test_groups_of_thousands_make_one_number(written):
    expected = "one million two hundred and thirty four thousand five hundred and sixty seven"
    assert normalize(written, "en").text == expected


def test_figures_set_apart_by_spaces_are_not_always_one_number():
    assert normalize("in 2005 300 people", "en").text == "in two thousand and five three hundred people"
    assert normalize("555 123 4567", "en").text.startswith("five hundred and fifty five one hundred")


@pytest.mark.parametrize("digits", ["۲/۵", "٢/٥"])
def test_a_slash_between_persian_figures_is_the_decimal_sign(digits):
    assert normalize(digits, "fa").text == "دو ممیز پنج"
    assert normalize(f"{digits}٪", "fa").text == normalize(f"٪{digits}", "fa").text == "دو ممیز پنج درصد"


@pytest.mark.parametrize(
    "filling",
    [" ", "\n", "\t ", "\u00a0", "\u3000", " .", "* ", "-", " -", "'", "…", "1", "½", "1/2 ", "100 ", "a.", "%"],
)
def test_any_filling_costs_linear_time(filling):
    def seconds(length):
        started = time.process_time()
        normalize("hello" + filling * (length // len(filling)) + "world", "en")
        return time.process_time() - started

    seconds(200)
    short, long = min(seconds(4000) for _ in range(2)), min(seconds(16000) for _ in range(2))
    assert long < 0.02 or long < 9 * short  # four times as long; a square would be sixteen times


def test_a_hundred_thousand_blanks_are_soon_read():
    started = time.process_time()
    assert encode("Hello" + " " * 100_000 + "there.", "en").phones == encode("Hello there.", "en").phones
    assert time.process_time() - started < 2
