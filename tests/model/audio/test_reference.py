"""Reference clips without a voice are refused; poor ones cause warnings."""

from pathlib import Path

import numpy as np
import pytest

from model.audio.io import AudioError
from model.audio.reference import GOOD_SECONDS, check_reference
from model.config.schema import Config
from model.text.espeak import speak

CONFIG = Config()
RATE = CONFIG.audio.sample_rate
NOISE = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
SENTENCE = "The morning train was late, so we walked along the river, and then we had a cup of tea."


def check(samples):
    return check_reference(Path("me.wav"), samples.astype(np.float32), CONFIG.audio, CONFIG.features)


@pytest.mark.parametrize("voice", ["en-us", "en-us+f2", "fa"])
def test_speech_is_good(voice):
    samples, rate, _ = speak(SENTENCE, voice)
    assert rate == RATE
    assert len(samples) > GOOD_SECONDS * RATE
    assert check(samples) == []


@pytest.mark.parametrize("seconds", [0.0001, 0.005, 0.3])
def test_a_moment_of_sound_is_refused_with_its_length(voiced, seconds):
    with pytest.raises(AudioError, match=r"me\.wav: too short to clone: 0\.\d+ s"):
        check(voiced(1.0, 150.0)[: max(1, int(seconds * RATE))])
    if seconds > 0.001:
        with pytest.raises(AudioError, match="too short"):  # the silence around it does not count
            check(np.concatenate([np.zeros(RATE), voiced(seconds, 150.0), np.zeros(RATE)]))


@pytest.mark.parametrize("level", [0.0, 1e-6, 1e-4])
def test_silence_is_refused(level):
    with pytest.raises(AudioError, match="silent"):
        check(level * 10 * NOISE)


def test_noise_of_any_colour_is_refused():
    brown = np.cumsum(NOISE)
    for samples in (NOISE, np.convolve(NOISE, np.ones(8) / 8), 0.2 * (brown - brown.mean()) / np.abs(brown).max()):
        with pytest.raises(AudioError, match="no voice in it"):
            check(samples)


def test_short_speech_and_hum_are_warned_about():
    samples, _, _ = speak("Good morning, everyone.", "en-us")
    (short,) = check(samples)
    assert "only 1." in short
    hum = 0.1 * np.sin(2 * np.pi * 100 * np.arange(4 * RATE) / RATE) + 0.01 * NOISE
    (steady,) = check(hum)
    assert "no pauses" in steady
