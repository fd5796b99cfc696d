"""Fundamental frequency by the trackers of WORLD, on the frames of the mel extractor."""

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
"""Decimation of the signal in which DIO finds candidates: four times as fast, and 99.5 % of the frames of read speech
are within half a semitone of the search at the full rate."""


def track_pitch(samples: np.ndarray, audio: AudioConfig, features: FeaturesConfig) -> np.ndarray:
    """Returns the fundamental frequency at the center of every mel frame.

    DIO finds candidates and StoneMask refines them (Morise et al., https://doi.org/10.1587/transinf.2015EDP7457).

    Args:
        samples: (N,) in [-1, 1] at `audio.sample_rate`.
        audio: Frame s is centered on sample s * hop + hop / 2.
        features: The search range in Hz.

    Returns:
        (S,) float32 in Hz, S = floor(N / hop); 0 where unvoiced.
    """
    world = _world()
    frames = len(samples) // audio.hop_length
    # WORLD's frames start at sample 0; dropping half a hop aligns them with the mel extractor's.
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
    """Returns speech with its fundamental frequency multiplied; formants and timing stay as they are.

    Args:
        samples: (N,) in [-1, 1] at `audio.sample_rate`.
        audio, features: As for `track_pitch`.
        factor: Above 0; 1 changes nothing.

    Returns:
        (N,) float32.
    """
    world, rate = _world(), audio.sample_rate
    double = np.ascontiguousarray(samples, dtype=np.float64)
    coarse, times = world.dio(double, rate, features.pitch_fmin, features.pitch_fmax)
    pitch = world.stonemask(double, coarse, times, rate)
    envelope, aperiodicity = world.cheaptrick(double, pitch, times, rate), world.d4c(double, pitch, times, rate)
    scaled = world.synthesize(pitch * factor, envelope, aperiodicity, rate)[: len(double)]
    return np.pad(scaled, (0, len(double) - len(scaled))).astype(np.float32)


@cache
def _world() -> ModuleType:
    """Loads the extension module of `pyworld`; its package would import `pkg_resources`, which setuptools dropped."""
    package = importlib.util.find_spec("pyworld")
    for folder in (package.submodule_search_locations or []) if package else []:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            library = Path(folder) / f"pyworld{suffix}"
            if library.is_file():
                loader = importlib.machinery.ExtensionFileLoader("pyworld.pyworld", str(library))
                spec = importlib.machinery.ModuleSpec("pyworld.pyworld", loader, origin=str(library))
                module = importlib.util.module_from_spec(spec)
                loader.exec_module(module)
                return module
    raise AudioError("pyworld", "the pitch tracker is not installed; `pip install pyworld`")
