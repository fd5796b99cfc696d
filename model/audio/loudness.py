"""Loudness of recordings (ITU-R BS.1770), the gain to a target loudness, and the power of frames in decibels."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pyloudnorm import Meter

BLOCK_SECONDS, STEP_SECONDS = 0.4, 0.1
HIGHEST_PEAK = 0.98
"""Largest amplitude after a gain; a recording with high peaks stays below the target loudness."""
POWER_FLOOR = 1e-10
"""Smallest power in decibels: -100 dB."""


def loudness(samples: np.ndarray, sample_rate: int) -> float:
    """Returns the integrated loudness of a recording in LUFS; -inf where no block is above the gate.

    Args:
        samples: (N,) in [-1, 1], mono, N > 0. Shorter than one block (0.4 s) they count as one block.
        sample_rate: In Hz.
    """
    block, step = int(BLOCK_SECONDS * sample_rate), int(STEP_SECONDS * sample_rate)
    if len(samples) < block:
        return float(_meter(sample_rate, len(samples)).integrated_loudness(samples.astype(np.float64)))
    # pyloudnorm counts an incomplete last block as a whole one, up to 0.7 LU too quiet; BS.1770 leaves it out.
    whole = samples[: block + (len(samples) - block) // step * step]
    return float(_meter(sample_rate, block).integrated_loudness(whole.astype(np.float64)))


def gain_to(target: float, samples: np.ndarray, sample_rate: int) -> float:
    """Returns the factor that brings a recording to `target` LUFS without clipping; 1 for silence."""
    found = loudness(samples, sample_rate)
    if not np.isfinite(found):
        return 1.0
    peak = float(np.abs(samples).max())
    return float(np.float32(min(10 ** ((target - found) / 20), HIGHEST_PEAK / peak)))


def frame_powers(samples: np.ndarray, size: int) -> np.ndarray:
    """Returns the mean power of the whole frames of `size` samples, (N // size,) float64."""
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    return np.square(frames, dtype=np.float64).mean(axis=1)


def decibels(power: np.ndarray | float) -> np.ndarray:
    """Returns powers in dB full scale, at least -100."""
    return 10 * np.log10(np.maximum(power, POWER_FLOOR))


@lru_cache
def _meter(sample_rate: int, block: int) -> Meter:
    """Returns a meter with blocks of `block` samples; `DeMan` has the standard's filters at any sample rate."""
    import pyloudnorm

    return pyloudnorm.Meter(sample_rate, filter_class="DeMan", block_size=block / sample_rate)
