"""Loudness as it is heard, and the gain that brings a recording to a wanted one without clipping."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BLOCK_SECONDS, STEP_SECONDS = 0.4, 0.1
OFFSET = -0.691
"""Of the loudness scale (LUFS): makes a full-scale sine at 1 kHz in one channel -3.01."""
ABSOLUTE_GATE = -70.0
RELATIVE_GATE = -10.0
HIGHEST_PEAK = 0.98
"""No sample of a louder recording exceeds this; quieter recordings may be left short of the wanted loudness."""


def loudness(samples: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness (ITU-R BS.1770-4) of a recording in LUFS; -inf where nothing is above the gate.

    Args:
        samples: (N,) in [-1, 1], mono. Shorter than one block (0.4 s) they count as one block.
        sample_rate: In Hz.
    """
    from scipy.signal import lfilter  # slow to load, and most speaking and training never asks

    weighted = samples.astype(np.float64)
    for numerator, denominator in _k_weighting(sample_rate):
        weighted = lfilter(numerator, denominator, weighted)
    block, step = int(BLOCK_SECONDS * sample_rate), int(STEP_SECONDS * sample_rate)
    total = np.concatenate([[0.0], np.cumsum(np.square(weighted))])
    if len(samples) < block:
        powers = total[-1:] / max(len(samples), 1)
    else:
        starts = np.arange(0, len(samples) - block + 1, step)
        powers = (total[starts + block] - total[starts]) / block
    powers = powers[_lufs(powers) > ABSOLUTE_GATE]
    if not len(powers):
        return -np.inf
    powers = powers[_lufs(powers) > _lufs(powers.mean()) + RELATIVE_GATE]
    return float(_lufs(powers.mean()))


def gain_to(target: float, samples: np.ndarray, sample_rate: int) -> float:
    """Factor that brings a recording to `target` LUFS, or as near as it comes without clipping; 1 for silence."""
    found = loudness(samples, sample_rate)
    if not np.isfinite(found):
        return 1.0
    peak = float(np.abs(samples).max())
    return float(np.float32(min(10 ** ((target - found) / 20), HIGHEST_PEAK / peak)))


def _lufs(power: np.ndarray) -> np.ndarray:
    return OFFSET + 10 * np.log10(np.maximum(power, 1e-12))


@lru_cache
def _k_weighting(rate: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The two filters of BS.1770 at any sample rate: a shelf for the head, then a high-pass.

    The standard tabulates them for 48 kHz; these are the analogue prototypes behind that table, by the bilinear
    transform (De Man, https://github.com/csteinmetz1/pyloudnorm has the same numbers).
    """
    gain, quality, centre = 3.999843853973347, 0.7071752369554196, 1681.974450955533
    k = np.tan(np.pi * centre / rate)
    high, bandwidth = 10 ** (gain / 20), (10 ** (gain / 20)) ** 0.4996667741545416
    scale = 1 + k / quality + k * k
    shelf = (
        np.array([high + bandwidth * k / quality + k * k, 2 * (k * k - high), high - bandwidth * k / quality + k * k]),
        np.array([scale, 2 * (k * k - 1), 1 - k / quality + k * k]),
    )
    quality, centre = 0.5003270373238773, 38.13547087602444
    k = np.tan(np.pi * centre / rate)
    scale = 1 + k / quality + k * k
    # The standard leaves this numerator unscaled.
    high_pass = (np.array([1.0, -2.0, 1.0]), np.array([scale, 2 * (k * k - 1), 1 - k / quality + k * k]) / scale)
    return shelf, high_pass
