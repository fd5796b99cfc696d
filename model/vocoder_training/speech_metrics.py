"""Quality metrics of a vocoder on held-out recordings: mel and STFT distances, and PESQ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.vocoder_training import perceptual
from model.vocoder_training.adversarial import MultiResolutionStft
from model.vocoder_training.pairs import Pair

PRIMARY = "mel_distance"


PESQ = "pesq"


@dataclass
class Judged:
    """Measures of a vocoder.

    Attributes:
        clips: Clip -> measure -> value.
        notes: What was left out, and why.
    """

    clips: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)

    def mean(self) -> dict[str, float]:
        """Measure -> mean over the clips that have it."""
        names = dict.fromkeys(name for values in self.clips.values() for name in values)
        return {name: float(np.mean([v[name] for v in self.clips.values() if name in v])) for name in names}


def measure(vocoder, pairs: Sequence[Pair], audio: AudioConfig) -> dict[str, float]:
    """Distances of vocoded mels from the recordings, averaged over clips; lower is better.

    Args:
        vocoder: Anything that maps (S, M) to (S * hop,).
        pairs: Held-out clips.
        audio: Mel settings.

    Returns:
        `mel_distance`: mean absolute log-mel difference. `stft_convergence`, `stft_distance`: multi-resolution STFT.
    """
    distances = _Distances(audio)
    return Judged({pair.id: distances(vocoder(pair.mel), pair.samples) for pair in pairs}).mean()


def judge_speech(vocoder, pairs: Sequence[Pair], audio: AudioConfig) -> Judged:
    """The distances of `measure` clip by clip, and `pesq`, wide-band PESQ (higher is better), where it is installed."""
    distances = _Distances(audio)
    clips, refused = {}, Counter()
    for pair in pairs:
        made = vocoder(pair.mel)
        clips[pair.id] = distances(made, pair.samples)
        if perceptual.INSTALLED:
            try:
                clips[pair.id][PESQ] = perceptual.wide_band_pesq(made, pair.samples, audio.sample_rate)
            except perceptual.UnratedError as error:
                refused[str(error)] += 1
    notes = [f"pesq leaves out {count} of {len(pairs)} clips: {reason}" for reason, count in refused.items()]
    return Judged(clips, notes)


class _Distances:
    def __init__(self, audio: AudioConfig) -> None:
        self.extractor, self.stft = MelExtractor(audio), MultiResolutionStft()

    @torch.no_grad()
    def __call__(self, made: np.ndarray, recorded: np.ndarray) -> dict[str, float]:
        """Samples (N,) twice -> measures."""
        ours, theirs = (torch.from_numpy(np.ascontiguousarray(samples))[None, None] for samples in (made, recorded))
        mel = (self.extractor(ours[0]) - self.extractor(theirs[0])).abs().mean()
        convergence, distance = self.stft(ours, theirs)
        return {PRIMARY: float(mel), "stft_convergence": float(convergence), "stft_distance": float(distance)}
