"""Quality metrics of a vocoder on held-out recordings: mel and STFT distances, and PESQ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.vocoder_training import perceptual
from model.vocoder_training.adversarial import MultiResolutionStft
from model.vocoder_training.pairs import Pair

MelToSamples = Callable[[np.ndarray], np.ndarray]
"""A vocoder: log-mel (S, M) -> samples (S * hop,)."""

PRIMARY_METRIC = "mel_distance"
PESQ = "pesq"


@dataclass
class ClipMetrics:
    """Metrics of a vocoder, clip by clip.

    Attributes:
        clips: Clip -> metric -> value.
        notes: Metrics that are missing for some clips, and why.
    """

    clips: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)

    def mean(self) -> dict[str, float]:
        """Returns each metric averaged over the clips that have it."""
        names = dict.fromkeys(name for values in self.clips.values() for name in values)
        return {name: float(np.mean([v[name] for v in self.clips.values() if name in v])) for name in names}


def compute_distances(vocoder: MelToSamples, pairs: Sequence[Pair], audio: AudioConfig) -> dict[str, float]:
    """Computes the distances between vocoded and recorded speech, averaged over clips; lower is better.

    Args:
        vocoder: The vocoder.
        pairs: Held-out clips.
        audio: Mel settings.

    Returns:
        `mel_distance`: mean absolute log-mel difference. `stft_convergence`, `stft_distance`: multi-resolution STFT.
    """
    distances = _Distances(audio)
    return ClipMetrics({pair.id: distances(vocoder(pair.mel), pair.samples) for pair in pairs}).mean()


def compute_metrics(vocoder: MelToSamples, pairs: Sequence[Pair], audio: AudioConfig) -> ClipMetrics:
    """Computes, clip by clip, the distances of `compute_distances`, and wide-band PESQ where its package is installed.

    PESQ (`pesq`) is higher for better speech.
    """
    distances = _Distances(audio)
    clips: dict[str, dict[str, float]] = {}
    unrated: Counter[str] = Counter()
    for pair in pairs:
        generated = vocoder(pair.mel)
        clips[pair.id] = distances(generated, pair.samples)
        if perceptual.INSTALLED:
            try:
                clips[pair.id][PESQ] = perceptual.wide_band_pesq(generated, pair.samples, audio.sample_rate)
            except perceptual.UnratedError as error:
                unrated[str(error)] += 1
    notes = [f"pesq leaves out {count} of {len(pairs)} clips: {reason}" for reason, count in unrated.items()]
    return ClipMetrics(clips, notes)


class _Distances:
    """Mel and STFT distances between two signals."""

    def __init__(self, audio: AudioConfig) -> None:
        self.extractor, self.stft = MelExtractor(audio), MultiResolutionStft()

    @torch.no_grad()
    def __call__(self, generated: np.ndarray, recorded: np.ndarray) -> dict[str, float]:
        """Returns the distances between two signals (N,), by name."""
        fake, real = (torch.from_numpy(np.ascontiguousarray(samples))[None, None] for samples in (generated, recorded))
        mel = (self.extractor(fake[0]) - self.extractor(real[0])).abs().mean()
        convergence, distance = self.stft(fake, real)
        return {PRIMARY_METRIC: float(mel), "stft_convergence": float(convergence), "stft_distance": float(distance)}
