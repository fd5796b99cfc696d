"""Numbers whose grammar depends on their last two digits, and times of day on both sides of ten minutes."""

import pytest

from model.text.normalize import normalize
from model.text.numbers import plural_form

RUBLES = {
    1: "один рубль", 2: "два рубля", 4: "четыре рубля", 5: "пять рублей", 10: "десять рублей",
    11: "одиннадцать рублей", 12: "двенадцать рублей", 14: "четырнадцать рублей", 20: "двадцать рублей",
    21: "двадцать один рубль", 22: "двадцать два рубля", 25: "двадцать пять рублей", 101: "сто один рубль",
    104: "сто четыре рубля", 111: "сто одиннадцать рублей", 112: "сто двенадцать рублей",
    114: "сто четырнадцать рублей", 121: "сто двадцать один рубль", 122: "сто двадцать два рубля",
}  # fmt: skip


@pytest.mark.parametrize(("number", "spoken"), RUBLES.items())
def test_a_russian_noun_follows_the_last_two_digits(number, spoken):
    assert normalize(f"{number} ₽", "ru").text == spoken


def test_a_russian_noun_repeats_every_hundred_and_other_languages_know_one_and_many():
    for number in range(100):
        assert plural_form(str(number), "ru", 3) == plural_form(str(700 + number), "ru", 3)
        assert plural_form(str(number), "en", 2) == (0 if number == 1 else 1)
        assert plural_form(str(number), "fr", 2) == (0 if number <= 1 else 1)
    assert [sum(plural_form(str(number), "ru", 3) == form for number in range(100)) for form in range(3)] == [9, 27, 64]


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("3,11 ₽", "три рубля одиннадцать копеек"),
        ("3,21 ₽", "три рубля двадцать одна копейка"),
        ("3,12 ₽", "три рубля двенадцать копеек"),
        ("3,42 ₽", "три рубля сорок две копейки"),
        ("11 %", "одиннадцать процентов"),
        ("71 %", "семьдесят один процент"),
        ("113 км", "сто тринадцать километров"),
        ("123 км", "сто двадцать три километра"),
        ("в 11:11", "в одиннадцать часов одиннадцать минут"),
        ("в 21:21", "в двадцать один час двадцать одна минута"),
        ("в 23:32", "в двадцать три часа тридцать две минуты"),
        ("12-й этаж", "двенадцатый этаж"),
        ("111-я страница", "сто одиннадцатая страница"),
        ("121-я страница", "сто двадцать первая страница"),
    ],
)
def test_russian_genders_and_ordinals_follow_the_last_two_digits(written, spoken):
    assert normalize(written, "ru").text == spoken


@pytest.mark.parametrize(
    ("language", "written", "spoken"),
    [
        ("en", "the 11th, 12th and 13th", "the eleventh, twelfth and thirteenth"),
        ("en", "the 111th, 112th and 121st", "the one hundred and eleventh, one hundred and twelfth and one hundred "
         "and twenty first"),
        ("es", "11 € y 31 €", "once euros y treinta y un euros"),
        ("es", "101 € y 121 €", "ciento un euros y ciento veintiún euros"),
        ("es", "£11, £31 y £101", "once libras, treinta y una libras y ciento una libras"),
        ("fr", "£11, £71, £81", "onze livres, soixante et onze livres, quatre vingt une livres"),
        ("de", "11 €, 21 €, 101 €, 111 €", "elf Euro, einundzwanzig Euro, einhundertein Euro, einhundertelf Euro"),
        ("zh", "10, 11, 20, 110, 111", "十, 十一, 二十, 一百一十, 一百一十一"),
    ],
)  # fmt: skip
def test_eleven_is_plural_in_other_languages(language, written, spoken):
    assert normalize(written, language).text == spoken


@pytest.mark.parametrize(
    ("language", "written", "spoken"),
    [
        ("en", "at 7:09", "at seven oh nine"),
        ("en", "at 7:10", "at seven ten"),
        ("en", "at 7:11", "at seven eleven"),
        ("en", "at 7:00", "at seven o'clock"),
        ("en", "at 10:01", "at ten oh one"),
        ("zh", "上午7:09", "上午七点零九分"),
        ("zh", "上午7:10", "上午七点十分"),
        ("zh", "上午7:00", "上午七点"),
        ("de", "um 7:09", "um sieben Uhr neun"),
        ("de", "um 7:10", "um sieben Uhr zehn"),
        ("fr", "à 7h10", "à sept heures dix"),
        ("es", "a las 7:10", "a las siete y diez"),
        ("it", "alle 7:10", "alle sette e dieci"),
        ("nl", "om 7:10", "om zeven uur tien"),
        ("ru", "в 7:10", "в семь часов десять минут"),
        ("fa", "ساعت ۷:۱۰", "ساعت هفت و ده دقیقه"),
    ],
)
def test_only_minutes_below_ten_have_a_leading_zero(language, written, spoken):
    assert normalize(written, language).text == spoken
