"""Voice conversion by matching frames: speech takes on the timbre of the most similar frames of a reference."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct
from scipy.ndimage import uniform_filter1d
from scipy.spatial import KDTree

from model.audio.mel import average_spectrum

NEIGHBORS = 4
"""Frames of the reference that are averaged. With more, clones are blurred and less similar."""
COEFFICIENTS = 20
"""Cepstral coefficients that frames are compared by: the envelope of the spectrum, without the harmonics."""
LEVEL_WEIGHT = 0.3
"""Weight of the first coefficient, the level, relative to the others."""
DELTA_REACH = 2
"""Frames on both sides that the change of the coefficients is computed from."""
SMOOTHING = 9
"""Frames (a tenth of a second) over which the change of a mel is averaged, since neighboring frames match distant ones
of the reference. With fewer, clones are more similar and less intelligible."""


class FrameMatcher:
    """Moves mels towards the frames of a reference recording.

    After kNN-VC (Baas et al., "Voice Conversion With Just Nearest Neighbors", arXiv:2305.18975), which replaces the
    frames of a self-supervised model. Here log-mel frames are compared by their cepstra, after the average spectrum of
    each side is subtracted, and are moved only part of the way: seconds of speech lack many sounds, and the remaining
    share of the model's own frames keeps them apart.

    Args:
        reference: (R, M) log-mel of the recording.
    """

    def __init__(self, reference: np.ndarray) -> None:
        self.reference = reference
        self._frames = KDTree(_cepstra(reference - average_spectrum(reference)))

    def move(self, mel: np.ndarray, spectrum: np.ndarray, share: float) -> np.ndarray:
        """Returns the log-mel (S, M), float32, moved towards the reference.

        Args:
            mel: (S, M) log-mel.
            spectrum: (M,) long-term average spectrum of its speaker (`average_spectrum`).
            share: 0 to 1; 0 leaves the mel as it is.
        """
        if share == 0:
            return mel
        neighbors = np.arange(1, min(NEIGHBORS, len(self.reference)) + 1)
        _, nearest = self._frames.query(_cepstra(mel - spectrum), neighbors)  # (S, neighbors)
        difference = self.reference[nearest].mean(axis=1) - mel
        return mel + np.float32(share) * uniform_filter1d(difference, SMOOTHING, axis=0, mode="nearest")


def _cepstra(mel: np.ndarray) -> np.ndarray:
    """Returns the cepstra of a log-mel (S, M) and their change over time, (S, 2 x `COEFFICIENTS`)."""
    cepstra = dct(mel, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstra[:, 0] *= LEVEL_WEIGHT
    padded = np.pad(cepstra, ((DELTA_REACH, DELTA_REACH), (0, 0)), mode="edge")
    return np.concatenate((cepstra, (padded[2 * DELTA_REACH :] - padded[: -2 * DELTA_REACH]) / 2), axis=1)
