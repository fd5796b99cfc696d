"""Audio: decoding, mel spectrograms, pitch, loudness, trimming, dynamic time warping, Griffin-Lim."""

from __future__ import annotations

import numpy as np

MEL_FLOOR = 1e-5
"""Smallest mel magnitude; silence is its logarithm."""
SILENCE = float(np.log(np.float32(MEL_FLOOR)))
"""Log-mel value of silence (-11.5129), also the value of padding frames."""
