"""Frames that are moved towards a reference take on its sound, and keep their own content."""

import numpy as np
import pytest

from model.audio.frame_matching import NEIGHBORS, FrameMatcher
from model.audio.mel import average_spectrum

BANDS = 80


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def phones(rng, number):
    """Log spectra of invented phones, (number, M)."""
    position = np.linspace(0, np.pi, BANDS)
    return (rng.normal(size=(number, 8)) @ np.cos(np.outer(np.arange(1, 9), position))).astype(np.float32)


def speech(spectra, order, length=12):
    """Log-mel of phones in this order, each of `length` frames."""
    return np.repeat(spectra[order], length, axis=0)


def test_each_phone_takes_on_its_sound_in_the_reference(rng):
    plain = phones(rng, 5)
    accent = 0.5 * phones(rng, 5)  # another sound of each phone, not the same for all
    own, reference = speech(plain, [0, 1, 2, 3, 4] * 2), speech(plain + accent, [3, 1, 4, 0, 2] * 2)
    wanted = speech(plain + accent, [0, 1, 2, 3, 4] * 2)
    moved = FrameMatcher(reference).move(own, average_spectrum(own), 1.0)
    middle = np.arange(6, len(own), 12)  # away from the borders, which are smoothed
    before, after = (np.abs(mel - wanted)[middle].mean() for mel in (own, moved))
    assert after < 0.3 * before
    assert moved.shape == own.shape
    assert moved.dtype == np.float32


def test_the_share_is_the_part_of_the_way(rng):
    own, reference = (speech(phones(rng, 5), [0, 1, 2, 3, 4]) for _ in range(2))
    matcher, spectrum = FrameMatcher(reference), average_spectrum(own)
    whole = matcher.move(own, spectrum, 1.0)
    assert np.allclose(matcher.move(own, spectrum, 0.25), own + 0.25 * (whole - own), atol=1e-5)
    assert np.array_equal(matcher.move(own, spectrum, 0.0), own)
    assert np.abs(whole - own).mean() > 0.1


def test_the_color_of_recordings_has_no_influence_on_the_match(rng):
    pause = np.full((40, BANDS), -20, np.float32)  # so that the louder frames are the same with every color
    own, reference = (np.concatenate((speech(phones(rng, 5), [0, 1, 2, 3, 4]), pause)) for _ in range(2))
    color = np.linspace(-4, 4, BANDS, dtype=np.float32)
    plain = FrameMatcher(reference).move(own, average_spectrum(own), 1.0)
    colored = FrameMatcher(reference + color).move(own, average_spectrum(own), 1.0)
    assert np.allclose(colored, plain + color, atol=1e-3)
    own_color = FrameMatcher(reference).move(own + color, average_spectrum(own) + color, 1.0)
    assert np.allclose(own_color, plain, atol=1e-3)


def test_a_frame_depends_on_its_surroundings_only(rng):
    own, reference = (speech(phones(rng, 5), [0, 1, 2, 3, 4]) for _ in range(2))
    matcher, spectrum = FrameMatcher(reference), average_spectrum(own)
    changed = own.copy()
    changed[40:] = 0
    assert np.allclose(matcher.move(changed, spectrum, 1.0)[:30], matcher.move(own, spectrum, 1.0)[:30], atol=1e-5)


@pytest.mark.parametrize("frames", [1, NEIGHBORS - 1, NEIGHBORS])
def test_short_references_and_short_speech_work(rng, frames):
    reference = phones(rng, frames)
    moved = FrameMatcher(reference).move(phones(rng, 1), np.zeros(BANDS, np.float32), 1.0)
    assert moved.shape == (1, BANDS)
    assert np.allclose(moved[0], reference.mean(0), atol=1e-5)


def test_the_mel_changes_smoothly(rng):
    own, reference = (speech(phones(rng, 5), [0, 1, 2, 3, 4]) for _ in range(2))
    change = FrameMatcher(reference).move(own, average_spectrum(own), 1.0) - own
    nearest = (reference - own).std()
    assert np.abs(np.diff(change, axis=0)).max() < 0.6 * np.abs(change).max()
    assert change.std() > 0.3 * nearest
