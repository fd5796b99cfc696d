"""The pitch tracker against sounds whose pitch is known, on the frames of the mel extractor."""

import numpy as np
import pytest
from scipy.signal import lfilter

from model.audio.pitch import scale_pitch, track_pitch
from model.audio.trimming import speech_bounds
from model.config.data import AudioConfig, FeaturesConfig

AUDIO, FEATURES = AudioConfig(), FeaturesConfig()
RATE, HOP = AUDIO.sample_rate, AUDIO.hop_length


def glottal(f0: np.ndarray) -> np.ndarray:
    """Pulses at `f0` (N,) Hz through three formants; noise where it is 0."""
    generator = np.random.default_rng(0)
    sound = (np.diff(np.floor(np.cumsum(f0) / RATE), prepend=0.0) > 0).astype(float)
    for frequency, bandwidth in ((700, 110), (1220, 120), (2600, 160)):
        radius = np.exp(-np.pi * bandwidth / RATE)
        sound = lfilter([1.0], [1.0, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], sound)
    noise = generator.standard_normal(len(f0))
    return (0.5 * sound / np.abs(sound).max() + np.where(f0 > 0, 1e-3, 2e-2) * noise).astype(np.float32)


def at_frames(f0: np.ndarray) -> np.ndarray:
    return f0[np.arange(len(f0) // HOP) * HOP + HOP // 2]


@pytest.mark.parametrize("f0", [80.0, 120.0, 220.0, 400.0])
def test_steady_pitch_is_found(f0):
    tracked = track_pitch(glottal(np.full(RATE, f0)), AUDIO, FEATURES)
    voiced = tracked > 0
    assert len(tracked) == RATE // HOP
    assert voiced.mean() > 0.9
    assert np.abs(1200 * np.log2(np.median(tracked[voiced]) / f0)) < 10


def test_a_glide_is_followed_frame_by_frame_and_voicing_is_found():
    t = np.arange(3 * RATE) / RATE
    f0 = np.where(t % 1 < 0.6, 120.0 * 2 ** (0.5 * np.sin(2 * np.pi * 0.7 * t)), 0.0)
    tracked, truth = track_pitch(glottal(f0), AUDIO, FEATURES), at_frames(f0)
    assert tracked.shape == truth.shape
    assert ((tracked > 0) != (truth > 0)).mean() < 0.05
    both = (tracked > 0) & (truth > 0)
    cents = np.abs(1200 * np.log2(tracked[both] / truth[both]))
    assert np.median(cents) < 10
    assert (cents > 100).mean() < 0.02


def test_frames_lie_where_the_mel_has_them():
    f0 = np.linspace(90.0, 360.0, RATE)  # a shift of one frame would be 3.1 Hz everywhere
    tracked, truth = track_pitch(glottal(f0), AUDIO, FEATURES), at_frames(f0)
    voiced = tracked > 0
    assert abs(np.median(tracked[voiced] - truth[voiced])) < 1.0


def test_noise_and_silence_have_no_pitch():
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    assert (track_pitch(noise, AUDIO, FEATURES) > 0).mean() < 0.15
    assert not track_pitch(np.zeros(RATE, dtype=np.float32), AUDIO, FEATURES).any()


def test_the_search_range_is_respected():
    sound = glottal(np.full(RATE, 90.0))
    tracked = track_pitch(sound, AUDIO, FeaturesConfig(pitch_fmin=150.0, pitch_fmax=300.0))
    assert not ((tracked > 0) & (tracked < 149.0)).any()


@pytest.mark.parametrize("samples", [22050, 22016, 22015, 8192, 700])
def test_there_is_one_value_per_mel_frame(samples):
    assert len(track_pitch(np.zeros(samples, dtype=np.float32), AUDIO, FEATURES)) == samples // HOP


def test_silence_at_the_ends_is_trimmed_to_the_margin(voiced):
    speech = voiced(1.0, 150.0)
    quiet = np.random.default_rng(0).standard_normal(RATE // 2).astype(np.float32) * 1e-4
    start, end = speech_bounds(np.concatenate([quiet, speech, quiet]), RATE, 40.0, 0.08)
    assert start == pytest.approx(RATE // 2 - 0.08 * RATE, abs=0.03 * RATE)
    assert end == pytest.approx(RATE // 2 + len(speech) + 0.08 * RATE, abs=0.03 * RATE)


def sounds(*parts: tuple[float, float]) -> np.ndarray:
    """Returns sounds of (seconds, level in dB) one after the other, in whole frames of 20 ms."""
    return np.concatenate([np.full(round(seconds / 0.02) * 441, 10 ** (level / 20)) for seconds, level in parts])


SPEECH, PAUSE, CLICK = (1.0, 0.0), (0.6, -90.0), (0.1, -30.0)


@pytest.mark.parametrize(
    ("parts", "trimmed"),
    [
        ((CLICK, PAUSE, SPEECH), (0.7, 0.0)),
        ((SPEECH, PAUSE, CLICK), (0.0, 0.7)),
        ((CLICK, PAUSE, CLICK, PAUSE, SPEECH, PAUSE, CLICK), (1.4, 0.7)),
        ((CLICK, (0.2, -90.0), SPEECH), (0.0, 0.0)),  # the beginning of the speech: no long pause follows
        (((0.3, -30.0), PAUSE, SPEECH), (0.0, 0.0)),  # too long for a click
        (((0.1, -10.0), PAUSE, SPEECH), (0.0, 0.0)),  # a short word
        ((SPEECH, PAUSE, CLICK, PAUSE, SPEECH), (0.0, 0.0)),  # not at an end
        ((CLICK,), (0.0, 0.0)),  # all that there is
    ],
)
def test_clicks_at_the_ends_are_trimmed_and_short_words_are_not(parts, trimmed):
    samples = sounds(*parts)
    start, end = speech_bounds(samples, RATE, 40.0, 0.0)
    assert (start / RATE, (len(samples) - end) / RATE) == pytest.approx(trimmed, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("level", [1.0, 0.01])
def test_the_margin_is_kept_at_both_ends_at_any_level_and_never_beyond_the_clip(margin, level):
    before, spoken, after = 20 * 441, 50 * 441, 10 * 441  # whole frames of 20 ms
    samples = level * np.pad(np.ones(spoken), (before, after))
    start, end = speech_bounds(samples, RATE, 35.0, margin)
    assert start == max(0, before - int(margin * RATE))
    assert end == min(len(samples), before + spoken + int(margin * RATE))


def test_the_threshold_of_silence_is_in_decibels_of_power_below_the_loudest_frame():
    samples = np.concatenate([np.full(4410, 10 ** (-30 / 20)), np.ones(4410), np.full(4410, 10 ** (-40 / 20))])
    assert speech_bounds(samples, RATE, 29.0, 0.0) == (4410, 8820)
    assert speech_bounds(samples, RATE, 31.0, 0.0) == (0, 8820)
    assert speech_bounds(samples, RATE, 39.0, 0.0) == (0, 8820)
    assert speech_bounds(samples, RATE, 41.0, 0.0) == (0, 13230)


def test_nothing_is_trimmed_when_switched_off_or_when_all_is_silent():
    assert speech_bounds(np.zeros(RATE), RATE, 40.0, 0.0) == (0, RATE // 441 * 441)
    assert speech_bounds(np.ones(RATE), RATE, 0.0, 0.0) == (0, RATE)
    assert speech_bounds(np.ones(10), RATE, 40.0, 0.0) == (0, 10)


@pytest.mark.parametrize("factor", [0.8, 1.2, 1.5])
def test_scaled_speech_has_the_scaled_pitch_and_the_same_length(factor):
    sound = glottal(np.full(RATE, 130.0)).astype(np.float32)
    sound = 0.3 * sound / np.abs(sound).max()
    scaled = scale_pitch(sound, AUDIO, FEATURES, factor)
    before, after = (track_pitch(item, AUDIO, FEATURES) for item in (sound, scaled))
    assert len(scaled) == len(sound)
    assert np.median(after[after > 0]) / np.median(before[before > 0]) == pytest.approx(factor, rel=0.02)
