"""Small corpora in which trimming, loudness, languages and sizes have an effect, so that tests detect errors in them.

The recordings begin and end with silence of different lengths and have different levels; the features are normalized to
another loudness. Every clip is therefore trimmed, and multiplied by a different gain.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from model.audio.io import read_audio, write_audio
from model.config.schema import Config
from model.corpus.manifest import read_manifest, write_manifest
from model.corpus.timings import read_alignments, write_alignments

RATE = 22050
LOUDNESS = -27.0
"""Loudness in LUFS to which the features of both corpora are normalized."""
CONFIG = Config.model_validate({"features": {"target_loudness": LOUDNESS}})
"""The settings that the features of the small corpus are made with."""
LEVELS = (0.9, 0.16, 0.08, 0.6)
"""Peak amplitudes of consecutive recordings, repeated."""


def surround(samples: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    """Scales a recording (N,) and puts it between two stretches of near silence.

    Args:
        samples: Speech from its first to its last sample.
        number: Number of the clip; consecutive clips differ in level and in the lengths of silence.

    Returns:
        The longer recording, and the seconds before the speech.
    """
    before, after = (int(seconds * RATE) for seconds in (0.21 + 0.07 * (number % 5), 0.13 + 0.05 * (number % 3)))
    loud = LEVELS[number % len(LEVELS)] * samples / np.abs(samples).max()
    noise = 1e-4 * np.random.default_rng(number).standard_normal(before + len(samples) + after)
    return (np.pad(loud, (before, after)) + noise).astype(np.float32), before / RATE


def surround_corpus(folder: Path) -> None:
    """Applies `surround` to every recording of an ingested corpus, and shifts the known times of its phones."""
    clips, times = read_manifest(folder), read_alignments(folder)
    changed = []
    for number, clip in enumerate(clips):
        samples, before = surround(read_audio(folder / clip.audio, RATE), number)
        write_audio(folder / clip.audio, samples, RATE)
        changed.append(replace(clip, seconds=len(samples) / RATE))
        times[clip.id] = [(phone, start + before, end + before) for phone, start, end in times[clip.id]]
    write_manifest(folder, changed)
    write_alignments(folder, times)
