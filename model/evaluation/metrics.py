"""Objective measures of speech against its recording. A measure that does not apply says why, and is never 0."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.fft import dct

CEPSTRAL_COEFFICIENTS = 24
"""Mel-cepstral coefficients compared; the 0th, the level, is left out."""


GROSS_PITCH_ERROR = 0.2
"""Relative error of F0 above which a frame counts as wrong."""


LONGEST_TOKEN = 40
"""Frames (0.46 s); a token with more has swallowed its neighbours."""


@dataclass(frozen=True)
class Measure:
    """A measured value, or the reason why there is none."""

    value: float | None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def not_applicable(reason: str) -> Measure:
    return Measure(None, reason)


def mean_of(measures: Iterable[Measure]) -> Measure:
    """Mean of those that apply; where none does, the first reason."""
    measures = list(measures)
    values = [measure.value for measure in measures if measure.value is not None]
    if values:
        return Measure(float(np.mean(values)))
    return not_applicable(measures[0].reason if measures else "no clips to measure")


def mel_cepstrum(mel: np.ndarray) -> np.ndarray:
    """(S, M) natural-log amplitude mel -> (S, 24): c_n of log|H| = sum of c_n cos(n w), without the level c_0."""
    return dct(mel, type=2, axis=1)[:, 1 : CEPSTRAL_COEFFICIENTS + 1] / mel.shape[1]


def mel_cepstral_distortion(mel: np.ndarray, recorded: np.ndarray, path: tuple[np.ndarray, np.ndarray]) -> Measure:
    """Mean difference of the spectral envelopes in dB (Kubichek 1993), lower is better.

    Args:
        mel, recorded: (S, M) and (R, M) log-mel.
        path: Frames that belong together, from `dtw_path` of the cepstra.
    """
    difference = mel_cepstrum(mel)[path[0]] - mel_cepstrum(recorded)[path[1]]
    return Measure(float((10.0 / np.log(10.0) * np.sqrt(2.0 * np.square(difference).sum(axis=1))).mean()))


def pitch_error(f0: np.ndarray, recorded: np.ndarray, path: tuple[np.ndarray, np.ndarray]) -> Measure:
    """Root mean square of the F0 difference in cents over frames voiced in both, lower is better.

    Args:
        f0, recorded: (S,) and (R,) Hz, 0 where unvoiced.
        path: Frames that belong together.
    """
    ours, theirs = f0[path[0]], recorded[path[1]]
    both = (ours > 0) & (theirs > 0)
    if not both.any():
        return not_applicable("no frame is voiced in both")
    return Measure(float(np.sqrt(np.square(1200.0 * np.log2(ours[both] / theirs[both])).mean())))


def voicing_error(f0: np.ndarray, recorded: np.ndarray, path: tuple[np.ndarray, np.ndarray]) -> Measure:
    """Share of frames voiced in one and not in the other, 0 to 1."""
    return Measure(float(((f0[path[0]] > 0) != (recorded[path[1]] > 0)).mean()))


def pitch_frame_error(f0: np.ndarray, recorded: np.ndarray, path: tuple[np.ndarray, np.ndarray]) -> Measure:
    """Share of frames whose voicing is wrong or whose F0 is off by more than 20 % (Chu and Alwan 2009), 0 to 1.

    Unlike `pitch_error` it always applies: speech without any voice cannot escape it.
    """
    ours, theirs = f0[path[0]], recorded[path[1]]
    both = (ours > 0) & (theirs > 0)
    gross = both & (np.abs(ours - theirs) > GROSS_PITCH_ERROR * theirs)
    return Measure(float((gross | ((ours > 0) != (theirs > 0))).mean()))


def pitch_range(f0: np.ndarray) -> Measure:
    """Standard deviation of F0 in semitones over the voiced frames of (S,) Hz; monotone speech has little of it."""
    voiced = f0[f0 > 0]
    if not len(voiced):
        return not_applicable("no frame is voiced")
    return Measure(float((12.0 * np.log2(voiced)).std()))


def duration_error(durations: np.ndarray, recorded: np.ndarray) -> Measure:
    """Mean absolute difference of token durations (T,) in frames; both of the same text."""
    if len(durations) != len(recorded):
        return not_applicable(f"{len(durations)} tokens were spoken, the recording has {len(recorded)}")
    return Measure(float(np.abs(durations.astype(float) - recorded).mean()))


def length_error(frames: int, recorded: int) -> Measure:
    """Relative error of the total length, 0 = the same."""
    return Measure(abs(frames - recorded) / recorded)


def alignment_coverage(durations: np.ndarray) -> Measure:
    """Share of tokens with 1 to 40 frames: an aligner that failed piles frames on a few tokens, higher is better."""
    return Measure(float(((durations >= 1) & (durations <= LONGEST_TOKEN)).mean()))


def alignment_sharpness(soft: np.ndarray) -> Measure:
    """Mean over frames of the largest share of a soft alignment (S, T): 1 = each frame belongs to one token."""
    return Measure(float(soft.max(axis=1).mean()))


def alignment_monotonicity(soft: np.ndarray) -> Measure:
    """Share of frames whose likeliest token is that of the frame before or the one or two after it."""
    if len(soft) < 2:
        return not_applicable("a single frame has no order")
    steps = np.diff(soft.argmax(axis=1))
    return Measure(float(((steps >= 0) & (steps <= 2)).mean()))


def boundary_error(durations: np.ndarray, true_seconds: np.ndarray, frame_seconds: float) -> Measure:
    """Mean absolute error of token starts and ends against known times, in frames.

    Args:
        durations: (T,) frames, from the first frame on.
        true_seconds: (T, 2) start and end from the first frame on; NaN for tokens of which nothing is known.
        frame_seconds: Duration of a frame.
    """
    ends = np.cumsum(durations)
    errors = np.abs(np.stack([ends - durations, ends], axis=1) - true_seconds / frame_seconds)
    known = np.isfinite(errors)
    if not known.any():
        return not_applicable("no token's time is known")
    return Measure(float(errors[known].mean()))


def similarity(vector: np.ndarray, speaker: np.ndarray) -> Measure:
    """Cosine of two unit vectors of the speaker encoder, 1 = the same voice, higher is better."""
    return Measure(float(vector @ speaker))
