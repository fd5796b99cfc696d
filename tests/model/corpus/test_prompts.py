"""Prompts: the richest sentences first, a page with every sentence and file name, and a folder that is a corpus."""

import csv
from itertools import pairwise

import numpy as np
import pytest

from model.audio.io import write_audio
from model.config.data import CorpusConfig
from model.corpus.prompts import choose_prompts, write_prompts
from model.corpus.readers import read_corpus, survey
from model.corpus.sentences import read_sentences, shipped_list
from model.errors import CorpusError
from model.text.encode import encode

RATE = 22050


def sounds(texts, language="en"):
    """Returns the phones and pairs of phones of sentences, as symbols of the model."""
    found = set()
    for text in texts:
        phones = [phone for phone in encode(text, language).phones if phone.isalpha() and len(phone) < 4]
        found |= set(phones) | set(pairwise(phones))
    return found


def test_prompts_cover_more_sounds_than_as_many_sentences_from_the_list():
    listed = read_sentences("", "en")
    chosen, coverage = choose_prompts(listed, "en", 6)
    rich = len(sounds(prompt.text for prompt in chosen))
    assert rich > max(len(sounds(listed[start : start + 6])) for start in range(0, len(listed) - 6, 6))
    assert coverage.phones > 0.85 * coverage.all_phones
    assert coverage.diphones < coverage.all_diphones


def test_each_prompt_adds_most_to_those_before():
    rich, same, other = "She judged a good boy.", "She judged a good boy, a good boy.", "Five thin zebras sing."
    chosen, _ = choose_prompts([same, "Boy.", rich, other], "en", 3)
    assert [prompt.text for prompt in chosen[:2]] in ([same, other], [other, same])
    assert [prompt.name for prompt in chosen] == ["en_01", "en_02", "en_03"]


def test_all_sentences_cover_everything_and_more_are_refused():
    listed = ["Good morning.", "Good evening."]
    _, coverage = choose_prompts(listed, "en", 2)
    assert (coverage.phones, coverage.diphones) == (coverage.all_phones, coverage.all_diphones)
    with pytest.raises(CorpusError, match="3 prompts are wanted, but the list has 2"):
        choose_prompts(listed, "en", 3)


@pytest.mark.parametrize("language", ["en", "fa", "de", "es"])
def test_the_folder_of_recordings_is_a_corpus_without_a_transcript_of_ones_own(tmp_path, language):
    chosen, _ = choose_prompts(shipped_list(language), language, 3)
    write_prompts(tmp_path, chosen, language, "anna")
    for prompt, suffix in zip(chosen, (".wav", ".flac", ".wav"), strict=True):
        write_audio(tmp_path / f"{prompt.name}{suffix}", 0.1 * np.ones(RATE, np.float32), RATE)
    source = read_corpus(CorpusConfig(**survey(tmp_path)))
    assert not source.problems
    found = {(item.id, item.text, item.language, item.speaker) for item in source.utterances}
    assert found == {(prompt.name, prompt.text, language, "anna") for prompt in chosen}


def test_page_and_text_hold_every_sentence_with_its_file_name(tmp_path):
    chosen, _ = choose_prompts(['Bread & "butter" <b>now</b>.', "Good evening."], "en", 2)
    page, text, table = write_prompts(tmp_path, chosen, "en", "speaker")
    assert "Bread &amp; &#34;butter&#34; &lt;b&gt;" in page.read_text("utf-8")
    for prompt in chosen:
        assert f"{prompt.name}.wav" in page.read_text("utf-8")
        assert f"{prompt.name}.wav\n    {prompt.text}\n" in text.read_text("utf-8")
    with table.open(encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file, delimiter="|")] == [prompt.text for prompt in chosen]


def test_a_table_of_other_prompts_is_not_overwritten(tmp_path):
    one, other = (choose_prompts([text], "en", 1)[0] for text in ("Good morning.", "Good evening."))
    write_prompts(tmp_path, one, "en", "anna")
    write_prompts(tmp_path, one, "en", "anna")
    with pytest.raises(CorpusError, match="exists, with other rows"):
        write_prompts(tmp_path, other, "en", "anna")


def test_a_language_without_a_list_names_the_fix():
    with pytest.raises(CorpusError, match=r"'nl' \(shipped: de, en, es, fa, fr, it\); give one with --texts"):
        shipped_list("nl")
