"""A table of written and spoken forms in nine languages, from the rules of each language."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from model.text.encode import encode
from model.text.normalize import normalize

with (Path(__file__).parent / "pairs.tsv").open(encoding="utf-8", newline="") as file:
    PAIRS = [tuple(row) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]
LANGUAGES = ("en", "fa", "de", "es", "fr", "it", "nl", "ru", "zh")


def test_the_table_covers_all_languages():
    assert len(PAIRS) >= 200
    assert set(LANGUAGES) <= {language for language, *_ in PAIRS}
    assert min(Counter(language for language, *_ in PAIRS if language in LANGUAGES).values()) >= 20


@pytest.mark.parametrize(("language", "written", "spoken"), PAIRS, ids=lambda value: value)
def test_written_becomes_spoken(language, written, spoken):
    result = normalize(written, language)
    assert result.text == spoken
    assert not result.unknown


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_spoken_form_has_known_symbols_only(language):
    for written in (written for name, written, _ in PAIRS if name == language):
        assert not encode(written, language).unknown, written
