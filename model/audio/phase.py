"""Phases of a magnitude spectrogram: sinusoids are continued from frame to frame, without iterations.

Single pass spectrogram inversion (Beauregard, Harish and Wyse 2015) with the phase locking of phase vocoders (Laroche
and Dolson 1999): each peak of a frame is a sinusoid, which continues the phase of the region that it lies in one frame
earlier, and the bins around a peak share its phase. S frames, K frequencies.
"""

from __future__ import annotations

import math

import numpy as np

TINY = 1e-6
"""Magnitude below which a bin counts as silent; it keeps logarithms finite."""


def continue_phases(magnitudes: np.ndarray, n_fft: int, hop: int, previous: np.ndarray | None = None) -> np.ndarray:
    """Returns the phases (S, K) of a magnitude spectrogram (S, K), in radians at the center of each frame, float64.

    Phases are computed frame by frame: a spectrogram in pieces gives the same ones if `previous` carries them over.

    Args:
        magnitudes: (S, K) magnitudes of the lowest K frequencies of frames that are `hop` samples apart.
        n_fft: Length of the frames in samples.
        hop: Distance of the frames in samples.
        previous: (K,) phases of the frame before the first one; None at the start of a signal, where they are 0.
    """
    frequencies, peaks = _sinusoids(magnitudes)
    turns = frequencies * (hop / n_fft)  # of each sinusoid from frame to frame
    current = np.zeros(magnitudes.shape[1]) if previous is None else previous / (2 * math.pi)
    for frame, turned in enumerate(turns):
        turned += current.take(peaks[frame])  # a row of `turns`, in place
        current = turned
    turns -= np.floor(turns)
    turns *= 2 * math.pi
    return turns


def _sinusoids(magnitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the frequency (S, K), in bins, of the sinusoid that each bin belongs to, and the bin (S, K) of its peak.

    The frequency of a peak is that of the parabola through the logarithms of its bin and of its two neighbors.
    """
    frames, bins = magnitudes.shape
    padded = np.pad(magnitudes, ((0, 0), (1, 1)))
    is_peak = (magnitudes > padded[:, :-2]) & (magnitudes >= padded[:, 2:])
    is_peak[:, 0] |= ~is_peak.any(axis=1)  # a silent frame has one sinusoid, of frequency 0
    rows, columns = np.nonzero(is_peak)  # frame by frame, in order of frequency
    low, middle, high = (np.log(np.maximum(padded[rows, columns + offset], TINY)) for offset in range(3))
    curvature = np.minimum(low - 2 * middle + high, -TINY)
    frequencies = columns + np.clip(0.5 * (low - high) / curvature, -0.5, 0.5)
    # The bins of a peak begin halfway to the peak below it, in the same frame; those of the lowest peak at bin 0.
    first_bins = np.where(np.diff(rows, prepend=-1) > 0, 0, (np.roll(columns, 1) + columns) // 2 + 1)
    widths = np.diff(rows * bins + first_bins, append=frames * bins)
    frequencies_of_bins, peaks = (np.repeat(values, widths).reshape(frames, bins) for values in (frequencies, columns))
    return frequencies_of_bins, peaks
