"""Fundamental frequency by the WORLD trackers, on the frames of the mel extractor."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from model.audio.io import AudioError
from model.config.data import AudioConfig, FeaturesConfig

DECIMATION = 4
"""DIO looks for candidates in a signal of a quarter of the rate: four times as fast, 99.5 % within half a semitone
of the full search on read speech."""


def track_pitch(samples: np.ndarray, audio: AudioConfig, features: FeaturesConfig) -> np.ndarray:
    """Fundamental frequency at the centre of every mel frame.

    DIO finds candidates and StoneMask refines them (Morise et al., https://doi.org/10.1587/transinf.2015EDP7457).

    Args:
        samples: (N,) in [-1, 1] at `audio.sample_rate`.
        audio: Gives the frames: frame s is centred on sample s * hop + hop / 2.
        features: Gives the search range in Hz.

    Returns:
        (S,) float32 in Hz, S = floor(N / hop); 0 where unvoiced.
    """
    world = _world()
    frames = len(samples) // audio.hop_length
    # WORLD's frames start at sample 0; dropping half a hop moves its grid onto the mel extractor's.
    shifted = np.ascontiguousarray(samples[audio.hop_length // 2 :], dtype=np.float64)
    period = 1000.0 * audio.hop_length / audio.sample_rate  # ms
    coarse, times = world.dio(
        shifted,
        audio.sample_rate,
        features.pitch_fmin,
        features.pitch_fmax,
        frame_period=period,
        speed=max(1, min(DECIMATION, audio.sample_rate // 5500)),
    )
    refined = world.stonemask(shifted, coarse, times, audio.sample_rate)
    pitch = np.zeros(frames, dtype=np.float32)
    length = min(frames, len(refined))
    pitch[:length] = refined[:length]
    return pitch


def scale_pitch(samples: np.ndarray, audio: AudioConfig, features: FeaturesConfig, factor: float) -> np.ndarray:
    """The same speech with its fundamental frequency multiplied, formants and timing kept, through WORLD.

    Args:
        samples: (N,) in [-1, 1] at `audio.sample_rate`.
        audio, features: As of `track_pitch`.
        factor: Above 0; 1 is no change.

    Returns:
        (N,) float32.
    """
    world, rate = _world(), audio.sample_rate
    sound = np.ascontiguousarray(samples, dtype=np.float64)
    coarse, times = world.dio(sound, rate, features.pitch_fmin, features.pitch_fmax)
    pitch = world.stonemask(sound, coarse, times, rate)
    envelope, noise = world.cheaptrick(sound, pitch, times, rate), world.d4c(sound, pitch, times, rate)
    scaled = world.synthesize(pitch * factor, envelope, noise, rate)[: len(sound)]
    return np.pad(scaled, (0, len(sound) - len(scaled))).astype(np.float32)


@cache
def _world() -> ModuleType:
    """The compiled part of `pyworld`, loaded by itself: the package around it imports `pkg_resources`, which
    setuptools no longer has."""
    package = importlib.util.find_spec("pyworld")
    for folder in (package.submodule_search_locations or []) if package else []:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            library = Path(folder) / f"pyworld{suffix}"
            if library.is_file():
                spec = importlib.util.spec_from_file_location("pyworld.pyworld", library)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    raise AudioError("pyworld", "the pitch tracker is not installed; `pip install pyworld`")
