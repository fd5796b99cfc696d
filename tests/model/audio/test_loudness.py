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


@pytest.mark.parametrize("seconds", [0.46, 0.56, 1.0, 1.06, 1.09, 2.349])
def test_an_incomplete_last_block_does_not_count(seconds):
    assert loudness(tone(22050, seconds), 22050) == pytest.approx(-3.01, abs=0.05)


def test_blocks_last_long_enough_to_span_the_pauses_between_words():
    bursts = np.concatenate([tone(22050, 0.2), np.zeros(4410, np.float32)] * 10)  # half of the power in every block
    assert loudness(bursts, 22050) == pytest.approx(-3.01 - 3.01, abs=0.1)


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


def levels(*sections):
    """Tones of (seconds, LUFS) each, one after the other at 22050 Hz."""
    return np.concatenate([tone(22050, seconds, 10 ** ((lufs + 3.01) / 20)) for seconds, lufs in sections])


@pytest.mark.parametrize(
    ("sections", "wanted"),
    [
        # The stereo cases 3 to 5 of EBU Tech 3341, as one channel.
        (((10, -36), (60, -23), (10, -36)), -23.0),
        (((10, -72), (10, -36), (60, -23), (10, -36), (10, -72)), -23.0),
        (((20, -26), (20.1, -20), (20, -26)), -23.0),
        # The gate lies 10 LU below the mean of what is above -70: sections 10 LU apart both count, 14 LU do not.
        (((10, -23), (10, -33)), -25.6),
        (((10, -23), (10, -37)), -23.0),
    ],
)
def test_the_relative_gate_leaves_quiet_sections_out(sections, wanted):
    assert loudness(levels(*sections), 22050) == pytest.approx(wanted, abs=0.1)


def test_the_absolute_gate_is_applied_before_the_relative_one():
    """Nearly silent blocks neither count nor lower the gate: the section at -37 stays below it."""
    assert loudness(levels((4, -23), (4, -37), (30, -75)), 22050) == pytest.approx(-23.0, abs=0.25)
    assert loudness(levels((4, -75)), 22050) == -np.inf


@pytest.mark.parametrize(("level", "target"), [(-40.0, -27.0), (-12.0, -27.0), (-31.0, -20.0)])
def test_a_gain_is_the_distance_to_the_target_in_decibels(level, target):
    samples = levels((2, level))
    assert 20 * np.log10(gain_to(target, samples, 22050)) == pytest.approx(target - level, abs=0.05)
