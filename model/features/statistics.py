"""Statistics for the normalization of features, computed from moments stored per clip: no features are read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.errors import FeatureError
from model.features.shards import MOMENTS


@dataclass(frozen=True, kw_only=True)
class SpeakerStatistics:
    """Statistics of one speaker over all its clips.

    Attributes:
        clips: Number of clips.
        seconds: Duration of the clips.
        voiced_share: Fraction of frames that are voiced.
        energy_mean, energy_std: Mean and standard deviation of the frames' log energy.
        tokens_per_second: Speaking rate.
    """

    clips: int
    seconds: float
    voiced_share: float
    energy_mean: float
    energy_std: float
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Means and standard deviations over the training clips, for normalization and its inverse.

    Attributes:
        mel_mean, mel_std: Of all log-mel values.
        energy_mean, energy_std: Of the frames' log energies.
        log_f0: Speaker -> mean and standard deviation of log F0 (Hz) over voiced frames.
        speakers: Speaker -> statistics of its clips.
    """

    mel_mean: float
    mel_std: float
    energy_mean: float
    energy_std: float
    log_f0: dict[str, tuple[float, float]]
    speakers: dict[str, SpeakerStatistics]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Statistics:
        """Restores statistics from `dataclasses.asdict` and a round trip through JSON."""
        log_f0 = {name: tuple(pair) for name, pair in values["log_f0"].items()}
        speakers = {name: SpeakerStatistics(**about) for name, about in values["speakers"].items()}
        return cls(**{**values, "log_f0": log_f0, "speakers": speakers})


def corpus_statistics(
    moments: np.ndarray, rows: np.ndarray, speakers: list[str], *, sample_rate: int, train: int
) -> Statistics:
    """Computes the statistics of a corpus.

    Args:
        moments: (clips, 3, 3): count, sum and sum of squares of mel, energy and log F0 of each clip.
        rows: (clips,) with the columns `speaker`, `split`, `samples`, `frames` and `tokens`.
        speakers: Speaker names, in the order of the column `speaker`.
        sample_rate: Hz.
        train: Value of the column `split` for training clips.

    Raises:
        FeatureError: there are no training clips.
    """
    training = rows["split"] == train
    if not training.any():
        raise FeatureError("no clip is in the train split, which the statistics are computed from; split again")
    mel, energy, log_f0 = (moments[:, MOMENTS.index(name)] for name in MOMENTS)  # (clips, 3) each
    mel_mean, mel_std = _mean_and_std(mel[training].sum(0))
    energy_mean, energy_std = _mean_and_std(energy[training].sum(0))
    return Statistics(
        mel_mean=mel_mean,
        mel_std=mel_std,
        energy_mean=energy_mean,
        energy_std=energy_std,
        log_f0=_log_f0_of_speakers(log_f0, rows["speaker"], training, speakers),
        speakers=_speaker_statistics(energy, log_f0, rows, speakers, sample_rate),
    )


def _log_f0_of_speakers(
    log_f0: np.ndarray, owner: np.ndarray, training: np.ndarray, speakers: list[str]
) -> dict[str, tuple[float, float]]:
    """Returns mean and standard deviation of log F0 per speaker.

    They are taken from the speaker's training clips, else from its other clips, else (if no frame is voiced, as in
    whispering) from all speakers.
    """
    trained, held_out = (_sum_by_speaker(log_f0[mask], owner[mask], len(speakers)) for mask in (training, ~training))
    everyone = trained.sum(0) + held_out.sum(0)
    statistics = {}
    for number, name in enumerate(speakers):
        own = trained[number] if trained[number, 0] else held_out[number]
        statistics[name] = _mean_and_std(own if own[0] else everyone)
    return statistics


def _speaker_statistics(
    energy: np.ndarray, log_f0: np.ndarray, rows: np.ndarray, speakers: list[str], sample_rate: int
) -> dict[str, SpeakerStatistics]:
    owner, count = rows["speaker"], len(speakers)
    energy_sums = _sum_by_speaker(energy, owner, count)
    voiced = np.bincount(owner, log_f0[:, 0], count)
    samples, frames, tokens = (np.bincount(owner, rows[name], count) for name in ("samples", "frames", "tokens"))
    clips = np.bincount(owner, minlength=count)
    statistics = {}
    for number, name in enumerate(speakers):
        seconds = float(samples[number]) / sample_rate
        energy_mean, energy_std = _mean_and_std(energy_sums[number])
        statistics[name] = SpeakerStatistics(
            clips=int(clips[number]),
            seconds=round(seconds, 3),
            voiced_share=round(float(voiced[number]) / float(frames[number]), 4),
            energy_mean=energy_mean,
            energy_std=energy_std,
            tokens_per_second=round(float(tokens[number]) / seconds, 3),
        )
    return statistics


def _sum_by_speaker(moments: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Sums moments (clips, 3) over the clips of each speaker; returns (speakers, 3)."""
    return np.stack([np.bincount(owner, moments[:, column], count) for column in range(3)], axis=1)


def _mean_and_std(moments: np.ndarray) -> tuple[float, float]:
    """Returns mean and standard deviation, at least 1e-3, of count, sum and sum of squares; (0, 1) if empty."""
    count, total, squares = moments
    if not count:
        return 0.0, 1.0
    mean = total / count
    return float(mean), float(max(np.sqrt(max(squares / count - mean**2, 0.0)), 1e-3))
