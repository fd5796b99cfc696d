"""Whether a recording has a voice in it that can be cloned."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.audio.io import AudioError
from model.audio.pitch import track_pitch
from model.audio.trimming import speech_bounds
from model.config.data import AudioConfig, FeaturesConfig

LEAST_SECONDS = 0.5
"""Shorter speech says nothing of a voice."""
GOOD_SECONDS = 3.0
LEAST_LEVEL_DB = -60.0
"""Root mean square, dB full scale: below is silence."""
LEAST_VOICED = 0.1
"""Share of voiced frames: of speech some 0.7, with noise as loud as a tenth of it 0.65, of noise alone 0.02."""
GOOD_CONTRAST_DB = 12.0
"""Between the loudest and the quietest frames: of clean speech some 45 dB, of hum and music few."""
_EDGE_DB = 40.0


def check_reference(path: Path, samples: np.ndarray, audio: AudioConfig, features: FeaturesConfig) -> list[str]:
    """Refuse a reference clip without a voice; return what should be said of one that is poor.

    Args:
        path: For messages.
        samples: (N,) at `audio.sample_rate`, as recorded.

    Raises:
        AudioError: it is too short, silent, or without a voice.
    """
    level = 10 * np.log10(max(float(np.square(samples, dtype=np.float64).mean()), 1e-12))
    if level < LEAST_LEVEL_DB:
        raise AudioError(path, f"silent ({level:.0f} dB full scale); a reference needs a voice that can be heard")
    start, end = speech_bounds(samples, audio.sample_rate, _EDGE_DB, 0.0)
    seconds = (end - start) / audio.sample_rate
    advice = f"give {GOOD_SECONDS:.0f} to 10 seconds of one voice"
    if seconds < LEAST_SECONDS:
        raise AudioError(path, f"too short to clone: {seconds:.3f} s of sound, at least {LEAST_SECONDS} s; {advice}")
    pitch = track_pitch(samples[start:end], audio, features)
    voiced = float((pitch > 0).mean())
    if voiced < LEAST_VOICED:
        raise AudioError(path, f"no voice in it, only noise or whispering ({voiced:.0%} of it has a pitch); {advice}")
    size = audio.win_length
    frames = samples[start:end][: (end - start) // size * size].reshape(-1, size)
    quiet, loud = np.percentile(np.square(frames, dtype=np.float64).mean(axis=1), (5, 95))
    contrast = 10 * np.log10(max(loud, 1e-12) / max(quiet, 1e-12))
    warnings = []
    if seconds < GOOD_SECONDS:
        warnings.append(f"{path}: only {seconds:.1f} s of speech; the voice may not be like its own ({advice})")
    if contrast < GOOD_CONTRAST_DB:
        warnings.append(f"{path}: no pauses ({contrast:.0f} dB contrast): noise, hum or music will be cloned too")
    return warnings
