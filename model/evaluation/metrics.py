"""Objective metrics of synthesized speech against its recording.

A metric that does not apply to a sentence has a reason instead of a value; it is never 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.fft import dct

from model.evaluation.statistics import estimate_mean

CEPSTRAL_COEFFICIENTS = 24
"""Mel-cepstral coefficients that are compared; the 0th, which is the level, is left out."""

GROSS_PITCH_ERROR = 0.2
"""Relative F0 error above which a frame counts as wrong."""

LONGEST_TOKEN = 40
"""Frames (0.46 s) above which a token is assumed to cover its neighbors as well."""

MIN_VALUES_FOR_INTERVAL = 8
"""Number of values below which the interval of their mean is not shown: it would be wide and unreliable."""

AlignedFrames = tuple[np.ndarray, np.ndarray]
"""Frame numbers of both signals along a dynamic time warping path (`model.audio.dtw.dtw_path`)."""


@dataclass(frozen=True)
class Metric:
    """A value, or the reason why the metric does not apply."""

    value: float | None
    reason: str = ""
    interval: tuple[float, float] | None = None
    """95 % interval of a mean of at least eight values."""

    def as_dict(self) -> dict[str, Any]:
        plain = {"value": self.value, "reason": self.reason}
        return plain if self.interval is None else {**plain, "interval": list(self.interval)}


def not_applicable(reason: str) -> Metric:
    """Returns a metric without a value."""
    return Metric(None, reason)


def mean_of(metrics: Iterable[Metric]) -> Metric:
    """Returns the mean of the metrics that apply, with its interval, or the first reason where none does."""
    metrics = list(metrics)
    values = [metric.value for metric in metrics if metric.value is not None]
    if len(values) >= MIN_VALUES_FOR_INTERVAL:
        estimate = estimate_mean(values)
        return Metric(estimate.mean, interval=(estimate.low, estimate.high))
    if values:
        return Metric(float(np.mean(values)))
    return not_applicable(metrics[0].reason if metrics else "no clips to evaluate")


def mel_cepstrum(mel: np.ndarray) -> np.ndarray:
    """Returns the mel cepstrum (S, 24) of a natural-log amplitude mel (S, M), without the level c_0.

    The coefficients c_n satisfy log|H| = sum of c_n cos(n w).
    """
    return dct(mel, type=2, axis=1)[:, 1 : CEPSTRAL_COEFFICIENTS + 1] / mel.shape[1]


def mel_cepstral_distortion(mel: np.ndarray, recorded: np.ndarray, path: AlignedFrames) -> Metric:
    """Returns the mel-cepstral distortion in dB (Kubichek 1993); lower is better.

    Args:
        mel, recorded: Log-mels (S, M) and (R, M).
        path: Aligned frames, from the cepstra.
    """
    difference = mel_cepstrum(mel)[path[0]] - mel_cepstrum(recorded)[path[1]]
    return Metric(float((10.0 / np.log(10.0) * np.sqrt(2.0 * np.square(difference).sum(axis=1))).mean()))


def pitch_error(f0: np.ndarray, recorded: np.ndarray, path: AlignedFrames) -> Metric:
    """Returns the root mean square F0 difference in cents over frames that are voiced in both; lower is better.

    Args:
        f0, recorded: F0 (S,) and (R,) in Hz, 0 where unvoiced.
        path: Aligned frames.
    """
    ours, theirs = f0[path[0]], recorded[path[1]]
    both = (ours > 0) & (theirs > 0)
    if not both.any():
        return not_applicable("no frame is voiced in both")
    return Metric(float(np.sqrt(np.square(1200.0 * np.log2(ours[both] / theirs[both])).mean())))


def voicing_error(f0: np.ndarray, recorded: np.ndarray, path: AlignedFrames) -> Metric:
    """Returns the share of frames, 0 to 1, that are voiced in one signal and unvoiced in the other."""
    return Metric(float(((f0[path[0]] > 0) != (recorded[path[1]] > 0)).mean()))


def pitch_frame_error(f0: np.ndarray, recorded: np.ndarray, path: AlignedFrames) -> Metric:
    """Returns the F0 frame error (Chu and Alwan 2009): the share of frames with wrong voicing or F0 off by over 20 %.

    Unlike `pitch_error` it always applies, also to speech without a voiced frame.
    """
    ours, theirs = f0[path[0]], recorded[path[1]]
    both = (ours > 0) & (theirs > 0)
    gross = both & (np.abs(ours - theirs) > GROSS_PITCH_ERROR * theirs)
    return Metric(float((gross | ((ours > 0) != (theirs > 0))).mean()))


def pitch_range(f0: np.ndarray) -> Metric:
    """Returns the standard deviation of F0 (S,) in semitones over voiced frames; it is low for monotone speech."""
    voiced = f0[f0 > 0]
    if not len(voiced):
        return not_applicable("no frame is voiced")
    return Metric(float((12.0 * np.log2(voiced)).std()))


def duration_error(durations: np.ndarray, recorded: np.ndarray) -> Metric:
    """Returns the mean absolute difference of the token durations (T,) of one text, in frames."""
    if len(durations) != len(recorded):
        return not_applicable(f"{len(durations)} tokens were synthesized, the recording has {len(recorded)}")
    return Metric(float(np.abs(durations.astype(float) - recorded).mean()))


def length_error(frames: int, recorded: int) -> Metric:
    """Returns the relative error of the total length in frames; 0 means equal."""
    return Metric(abs(frames - recorded) / recorded)


def alignment_coverage(durations: np.ndarray) -> Metric:
    """Returns the share of tokens (T,) with 1 to 40 frames; higher is better.

    A failed alignment assigns most frames to a few tokens.
    """
    return Metric(float(((durations >= 1) & (durations <= LONGEST_TOKEN)).mean()))


def alignment_sharpness(soft: np.ndarray) -> Metric:
    """Returns the mean over frames of the maximum of a soft alignment (S, T); 1 means one token per frame."""
    return Metric(float(soft.max(axis=1).mean()))


def alignment_monotonicity(soft: np.ndarray) -> Metric:
    """Returns the share of frames whose most likely token is that of the previous frame or one of the next two."""
    if len(soft) < 2:
        return not_applicable("a single frame has no order")
    steps = np.diff(soft.argmax(axis=1))
    return Metric(float(((steps >= 0) & (steps <= 2)).mean()))


def boundary_error(durations: np.ndarray, true_seconds: np.ndarray, frame_seconds: float) -> Metric:
    """Returns the mean absolute error of token starts and ends against known times, in frames.

    Args:
        durations: Frames per token (T,).
        true_seconds: Start and end of each token (T, 2) in seconds from the first frame; NaN where unknown.
        frame_seconds: Duration of a frame.
    """
    ends = np.cumsum(durations)
    errors = np.abs(np.stack([ends - durations, ends], axis=1) - true_seconds / frame_seconds)
    known = np.isfinite(errors)
    if not known.any():
        return not_applicable("the time of no token is known")
    return Metric(float(errors[known].mean()))


def similarity(vector: np.ndarray, speaker: np.ndarray) -> Metric:
    """Returns the cosine of two unit speaker embeddings; higher is better, 1 means the same voice."""
    return Metric(float(vector @ speaker))
