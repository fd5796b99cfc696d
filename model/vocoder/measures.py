"""How close a vocoder comes to recordings it did not learn from: distances of mels and of spectra."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from model.audio.mel import MelExtractor
from model.config.schema import AudioConfig
from model.vocoder.losses import MultiResolutionStft
from model.vocoder.pairs import Pair

PRIMARY = "mel_distance"


def measure(vocoder, pairs: Sequence[Pair], audio: AudioConfig) -> dict[str, float]:
    """Measures of vocoded mels against the recordings, averaged over clips; lower is better.

    Args:
        vocoder: Anything that maps (S, M) to (S * hop,).
        pairs: Held-out clips.
        audio: Mel settings.

    Returns:
        `mel_distance`: mean absolute log-mel difference. `stft_convergence`, `stft_distance`: multi-resolution STFT.
    """
    extractor, stft = MelExtractor(audio), MultiResolutionStft()
    values = []
    for pair in pairs:
        made = torch.from_numpy(vocoder(pair.mel))[None, None]
        recorded = torch.from_numpy(np.ascontiguousarray(pair.samples))[None, None]
        with torch.no_grad():
            mel = (extractor(made[0]) - extractor(recorded[0])).abs().mean()
            convergence, distance = stft(made, recorded)
        values.append((float(mel), float(convergence), float(distance)))
    means = np.mean(values, axis=0)
    return dict(zip((PRIMARY, "stft_convergence", "stft_distance"), map(float, means), strict=True))
