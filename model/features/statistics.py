"""What normalises features, from sums that every clip brings along: nothing is read again when the corpus changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.errors import FeatureError
from model.features.shards import MOMENTS


@dataclass(frozen=True)
class SpeakerStatistics:
    """One speaker's speech, over all its clips.

    Attributes:
        clips, seconds: How much there is.
        voiced_share: Of the frames.
        energy_mean, energy_std: Of the frames' log energies.
        tokens_per_second: Speed.
    """

    clips: int
    seconds: float
    voiced_share: float
    energy_mean: float
    energy_std: float
    tokens_per_second: float


@dataclass(frozen=True)
class Statistics:
    """Means and deviations over the training clips: all that normalisation is undone with.

    Attributes:
        mel_mean, mel_std: Of all log-mel values.
        energy_mean, energy_std: Of the frames' log energies.
        log_f0: Speaker -> mean and deviation of log F0 (Hz) over voiced frames.
        speakers: Speaker -> what its clips are like.
    """

    mel_mean: float
    mel_std: float
    energy_mean: float
    energy_std: float
    log_f0: dict[str, tuple[float, float]]
    speakers: dict[str, SpeakerStatistics]

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Statistics:
        """From what `dataclasses.asdict` made, through JSON."""
        pairs = {name: tuple(pair) for name, pair in plain["log_f0"].items()}
        speakers = {name: SpeakerStatistics(**values) for name, values in plain["speakers"].items()}
        return cls(**{**plain, "log_f0": pairs, "speakers": speakers})


def corpus_statistics(
    moments: np.ndarray, rows: np.ndarray, speakers: list[str], sample_rate: int, train: int
) -> Statistics:
    """Statistics of a corpus.

    Args:
        moments: (clips, 3, 3): count, sum and sum of squares of mel, energy and log F0 of each clip.
        rows: (clips,) with the columns `speaker`, `split`, `samples`, `frames` and `tokens`.
        speakers: Names that the column counts in.
        sample_rate: In Hz.
        train: The training split's number.

    Raises:
        FeatureError: there are no training clips.
    """
    training = rows["split"] == train
    mel, energy, pitch = (moments[:, MOMENTS.index(name)] for name in MOMENTS)  # (clips, 3) each
    if not training.any():
        raise FeatureError("no clip is in the train split, so there is nothing to normalise by; split again")
    owner, count = rows["speaker"].astype(np.int64), len(speakers)
    trained, held_out = (_per_speaker(pitch[own], owner[own], count) for own in (training, ~training))
    everyone = trained.sum(0) + held_out.sum(0)
    log_f0, about = {}, {}
    loudness = _per_speaker(energy, owner, count)
    samples, frames, tokens = (np.bincount(owner, rows[name], count) for name in ("samples", "frames", "tokens"))
    clips = np.bincount(owner, minlength=count)
    for number, name in enumerate(speakers):
        own = trained[number] if trained[number, 0] else held_out[number]
        # A speaker of whom nothing is voiced (whispering, noise) is measured by everyone's pitch.
        log_f0[name] = _mean_and_deviation(own if own[0] else everyone)
        seconds = float(samples[number]) / sample_rate
        about[name] = SpeakerStatistics(
            int(clips[number]),
            round(seconds, 3),
            round(float(trained[number, 0] + held_out[number, 0]) / float(frames[number]), 4),
            *_mean_and_deviation(loudness[number]),
            round(float(tokens[number]) / seconds, 3),
        )
    whole = (_mean_and_deviation(item[training].sum(0)) for item in (mel, energy))
    return Statistics(*(value for pair in whole for value in pair), log_f0, about)


def _per_speaker(moments: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """(clips, 3) -> (speakers, 3) sums."""
    return np.stack([np.bincount(owner, moments[:, column], count) for column in range(3)], axis=1)


def _mean_and_deviation(sums: np.ndarray) -> tuple[float, float]:
    if not sums[0]:
        return 0.0, 1.0
    mean = sums[1] / sums[0]
    return float(mean), float(max(np.sqrt(max(sums[2] / sums[0] - mean**2, 0.0)), 1e-3))
