"""Small corpora that are nowhere neutral: what trimming, loudness, languages and uneven sizes do shows in every test.

The recordings begin and end with silence of uneven length and are of uneven level; the features are brought to a
loudness that is nobody's own. So every clip is trimmed at its start, and multiplied by a gain of its own.
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
"""LUFS that the features of both corpora are brought to."""
CONFIG = Config.model_validate({"features": {"target_loudness": LOUDNESS}})
"""The settings that the features of the small corpus are made with."""
LEVELS = (0.9, 0.16, 0.08, 0.6)
"""Peaks of recordings, in turn."""


def surround(samples: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    """Put a recording (N,) at a level of its own between two stretches of near silence.

    Args:
        samples: Speech from its first to its last sample.
        number: Of the clip; neighbors differ in level and in both lengths.

    Returns:
        The longer recording, and the seconds before the speech.
    """
    before, after = (int(seconds * RATE) for seconds in (0.21 + 0.07 * (number % 5), 0.13 + 0.05 * (number % 3)))
    loud = LEVELS[number % len(LEVELS)] * samples / np.abs(samples).max()
    noise = 1e-4 * np.random.default_rng(number).standard_normal(before + len(samples) + after)
    return (np.pad(loud, (before, after)) + noise).astype(np.float32), before / RATE


def surround_corpus(folder: Path) -> None:
    """`surround` every recording of an ingested corpus, and move the known times of its phones along."""
    clips, times = read_manifest(folder), read_alignments(folder)
    changed = []
    for number, clip in enumerate(clips):
        samples, before = surround(read_audio(folder / clip.audio, RATE), number)
        write_audio(folder / clip.audio, samples, RATE)
        changed.append(replace(clip, seconds=len(samples) / RATE))
        times[clip.id] = [(phone, start + before, end + before) for phone, start, end in times[clip.id]]
    write_manifest(folder, changed)
    write_alignments(folder, times)
