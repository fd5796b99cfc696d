"""Recognizer and character error rate: a better transcript never scores worse, the order of clips does not matter."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.audio.io import read_audio
from model.evaluation.recognizer import (
    SAMPLE_RATE,
    Recognizer,
    RecognizerError,
    character_error,
    letters,
    supports,
    transcribe,
)

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=8)


@given(WORDS, st.data())
def test_correcting_a_word_never_raises_the_error(words, data):
    transcript = [data.draw(st.one_of(st.just(word), st.text("xyz", min_size=1, max_size=6))) for word in words]
    text = " ".join(words)
    for i, word in enumerate(words):
        before = character_error(text, " ".join(transcript))
        transcript[i] = word
        assert character_error(text, " ".join(transcript)) <= before
    assert character_error(text, " ".join(transcript)) == 0.0


def test_only_letters_count():
    assert letters("It's  a Café — No. 5!") == "its a cafe no"
    assert character_error("Don't go, there.", "dont go there") == 0.0
    assert character_error("abcd", "") == 1.0
    assert character_error("abcd", "abce") == 0.25


def test_a_text_without_letters_has_no_error_rate():
    with pytest.raises(ValueError, match="no letters"):
        character_error("...", "something")


def test_only_english_is_understood():
    assert supports("en")
    assert supports("en-us")
    assert not supports("fa")
    assert not supports("ens")


def test_a_missing_recognizer_names_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecognizerError, match=r"pip install 'myxtts\[evaluate\]'"):
        Recognizer(1)


@pytest.mark.real_data
def test_speech_is_understood_noise_is_not_and_order_does_not_matter(real_data):
    lines = (real_data / "kathleen" / "metadata.csv").read_text("utf-8").splitlines()[:3]
    clips = []
    for line in lines:
        name, text, _ = line.split("|")
        clips.append((read_audio(real_data / "kathleen" / "wavs" / f"{name}.wav", SAMPLE_RATE), text))
    forwards = [transcribe(samples) for samples, _ in clips]
    backwards = [transcribe(samples) for samples, _ in reversed(clips)][::-1]
    assert forwards == backwards
    errors = [character_error(text, transcript) for (_, text), transcript in zip(clips, forwards, strict=True)]
    assert np.mean(errors) < 0.3
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE)
    assert character_error(clips[0][1], transcribe(noise)) > 0.6 > max(errors)
