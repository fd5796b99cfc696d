"""Loudness against the standard's reference tone and level, and gains that never clip."""

import numpy as np
import pytest

from model.audio.loudness import HIGHEST_PEAK, gain_to, loudness


def tone(rate, seconds=3.0, amplitude=1.0, frequency=997.0):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 22050, 24000, 48000])
def test_the_reference_tone_of_the_standard(rate):
    assert loudness(tone(rate), rate) == pytest.approx(-3.01, abs=0.05)
    assert loudness(tone(rate, amplitude=0.1), rate) == pytest.approx(-23.01, abs=0.05)


def test_deep_tones_count_less_than_high_ones():
    assert loudness(tone(22050, frequency=40.0), 22050) < loudness(tone(22050), 22050) - 3
    assert loudness(tone(22050, frequency=4000.0), 22050) > loudness(tone(22050), 22050) + 3


def test_pauses_do_not_make_speech_quieter():
    paused = np.concatenate([tone(22050), np.zeros(5 * 22050, np.float32)])
    assert loudness(paused, 22050) == pytest.approx(loudness(tone(22050), 22050), abs=0.7)


def test_the_gain_reaches_the_target():
    quiet = tone(22050, amplitude=0.02)
    assert loudness(quiet * gain_to(-23.0, quiet, 22050), 22050) == pytest.approx(-23.0, abs=0.01)


def test_no_gain_clips():
    clicking = tone(22050, amplitude=0.01)
    clicking[5000] = 0.5
    assert np.abs(clicking * gain_to(-10.0, clicking, 22050)).max() == pytest.approx(HIGHEST_PEAK)


def test_silence_and_snippets():
    assert gain_to(-23.0, np.zeros(22050, np.float32), 22050) == 1.0
    assert loudness(np.zeros(22050, np.float32), 22050) == -np.inf
    assert loudness(tone(22050, seconds=0.1), 22050) == pytest.approx(-3.0, abs=1.5)
