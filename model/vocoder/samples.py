"""Held-out clips as a vocoder speaks them, to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.audio.io import write_audio
from model.config.schema import AudioConfig
from model.vocoder.pairs import Pair

SAMPLES = 2
"""Clips that are written as sound."""


def write_samples(vocoder, pairs: Sequence[Pair], folder: Path, when: str, audio: AudioConfig) -> list[Path]:
    """Speak the first clips into `folder/<clip>-<when>.wav`; returns the files.

    Args:
        vocoder: Anything that maps (S, M) to (S * hop,).
        pairs: Held-out clips.
        folder: Made where it is missing.
        when: Tells the moments of a run apart.
        audio: Mel settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for pair in pairs[:SAMPLES]:
        files.append(folder / f"{pair.id}-{when}.wav")
        write_audio(files[-1], np.clip(vocoder(pair.mel), -1.0, 1.0), audio.sample_rate)
    return files
