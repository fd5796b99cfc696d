"""Continued phases follow the frequency of a sinusoid, are shared around its peak, and may be computed in pieces."""

import math

import numpy as np
import pytest

from model.audio.phase import continue_phases

N_FFT, HOP = 1024, 256


def spectrogram(samples: np.ndarray) -> np.ndarray:
    """Returns the magnitudes (S, 513) of samples, with a Hann window."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]
    return np.abs(np.fft.rfft(frames * np.hanning(N_FFT + 1)[:-1]))


@pytest.mark.parametrize("frequency", [20.0, 20.3, 77.5, 300.8])
def test_the_phase_of_a_sinusoid_advances_by_its_frequency(frequency):
    """In bins; the parabola through three magnitudes is exact to a few hundredths of a bin."""
    samples = np.sin(2 * math.pi * frequency / N_FFT * np.arange(20 * HOP))
    phases = continue_phases(spectrogram(samples), N_FFT, HOP)[:, round(frequency)]
    advance = np.angle(np.exp(1j * (np.diff(phases) - 2 * math.pi * frequency * HOP / N_FFT)))
    assert np.abs(advance).max() < 2 * math.pi * 0.05 * HOP / N_FFT


def test_bins_around_a_peak_share_its_phase():
    samples = np.sin(2 * math.pi * 40.2 / N_FFT * np.arange(12 * HOP))
    phases = continue_phases(spectrogram(samples), N_FFT, HOP)
    assert np.array_equal(phases[:, 39], phases[:, 40])
    assert np.array_equal(phases[:, 41], phases[:, 40])


def test_a_bin_that_passes_to_another_peak_takes_its_phase():
    """Bin 16 belongs to the peak at 20 in the first frame, and to the one at 14 in the second."""
    magnitudes = np.zeros((2, 513), dtype=np.float32)
    magnitudes[0, [10, 20]] = magnitudes[1, [14, 20]] = 1.0
    phases = continue_phases(magnitudes, N_FFT, HOP, np.linspace(0.0, 6.0, 513))
    assert phases[0, 16] == phases[0, 20] != phases[0, 14]
    assert phases[1, 16] == phases[1, 14] != phases[1, 20]


def test_a_gliding_sinusoid_keeps_its_phase_when_its_peak_moves_to_another_bin():
    time = np.arange(40 * HOP)
    frequency = 30.0 + 4.0 * time / len(time)
    phases = continue_phases(spectrogram(np.sin(2 * math.pi * np.cumsum(frequency) / N_FFT)), N_FFT, HOP)
    peaks = np.round(frequency[np.arange(len(phases)) * HOP + N_FFT // 2]).astype(int)
    followed = phases[np.arange(len(phases)), peaks]
    expected = 2 * math.pi * frequency[np.arange(1, len(phases)) * HOP + N_FFT // 2] * HOP / N_FFT
    assert np.abs(np.angle(np.exp(1j * (np.diff(followed) - expected)))).max() < 0.3


@pytest.mark.parametrize("cut", [1, 7, 19])
def test_pieces_continue_where_the_last_one_ended(cut):
    magnitudes = np.random.default_rng(0).random((20, 513)).astype(np.float32)
    whole = continue_phases(magnitudes, N_FFT, HOP)
    first = continue_phases(magnitudes[:cut], N_FFT, HOP)
    second = continue_phases(magnitudes[cut:], N_FFT, HOP, first[-1])
    difference = np.exp(1j * np.concatenate((first, second))) - np.exp(1j * whole)
    assert np.abs(difference).max() < 1e-9
    assert not np.allclose(second, continue_phases(magnitudes[cut:], N_FFT, HOP))


def test_silence_has_finite_phases():
    assert np.isfinite(continue_phases(np.zeros((5, 513), dtype=np.float32), N_FFT, HOP)).all()
