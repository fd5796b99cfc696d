"""Checks that a reference clip contains a voice that can be cloned."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.audio.io import AudioError
from model.audio.loudness import decibels, frame_powers
from model.audio.pitch import track_pitch
from model.audio.trimming import speech_bounds
from model.config.data import AudioConfig, FeaturesConfig

MIN_SECONDS = 0.5
"""Shorter speech does not identify a voice."""
GOOD_SECONDS = 3.0
MIN_LEVEL_DB = -60.0
"""Root mean square in dB full scale below which a clip is silent."""
MIN_VOICED = 0.1
"""Fraction of voiced frames: speech has about 0.7, speech with noise at a tenth of its level 0.65, noise 0.02."""
GOOD_CONTRAST_DB = 12.0
"""Difference between the loudest and the quietest frames: clean speech has about 45 dB, hum and music little."""
_EDGE_DB = 40.0


def check_reference(path: Path, samples: np.ndarray, audio: AudioConfig, features: FeaturesConfig) -> list[str]:
    """Returns warnings about a poor reference clip, and refuses a clip without a voice.

    Args:
        path: For messages.
        samples: (N,) at `audio.sample_rate`, as recorded.

    Raises:
        AudioError: it is too short, silent, or without a voice.
    """
    level = float(decibels(frame_powers(samples, len(samples)).item()))
    if level < MIN_LEVEL_DB:
        raise AudioError(path, f"silent ({level:.0f} dB full scale); give a clip with audible speech")
    start, end = speech_bounds(samples, audio.sample_rate, _EDGE_DB, 0.0)
    seconds = (end - start) / audio.sample_rate
    advice = f"give {GOOD_SECONDS:.0f} to 10 seconds of one voice"
    if seconds < MIN_SECONDS:
        raise AudioError(path, f"too short to clone: {seconds:.3f} s of sound, at least {MIN_SECONDS} s; {advice}")
    pitch = track_pitch(samples[start:end], audio, features)
    voiced = float((pitch > 0).mean())
    if voiced < MIN_VOICED:
        raise AudioError(path, f"no voice in it, only noise or whispering ({voiced:.0%} voiced frames); {advice}")
    quiet, loud = decibels(np.percentile(frame_powers(samples[start:end], audio.win_length), (5, 95)))
    contrast = loud - quiet
    warnings = []
    if seconds < GOOD_SECONDS:
        warnings.append(f"{path}: only {seconds:.1f} s of speech; the cloned voice may not be similar ({advice})")
    if contrast < GOOD_CONTRAST_DB:
        warnings.append(f"{path}: no pauses ({contrast:.0f} dB contrast); noise, hum or music will be cloned too")
    return warnings
