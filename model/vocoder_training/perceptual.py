"""PESQ (ITU-T P.862.2), perceptual quality of speech; its package is an optional extra, since it is compiled C."""

from __future__ import annotations

import importlib.util

import numpy as np

from model.audio.io import resample
from model.errors import VocoderError

INSTALLED = importlib.util.find_spec("pesq") is not None
ABSENT = "pesq is not measured: its package is not installed (pip install 'myxtts[quality]')"
SAMPLE_RATE = 16000
"""Sample rate of wide-band PESQ, Hz."""


class UnratedError(VocoderError):
    """PESQ cannot rate this speech; the message says why."""


def wide_band_pesq(generated: np.ndarray, recorded: np.ndarray, sample_rate: int) -> float:
    """Returns the PESQ of speech compared with its recording, from 1 (bad) to 4.64 (identical).

    Args:
        generated, recorded: Samples (N,) of equal length.
        sample_rate: Sample rate of both, Hz.

    Raises:
        UnratedError: no utterance is found in one of them, or they are shorter than a quarter of a second.
    """
    from pesq import BufferTooShortError, NoUtterancesError, pesq

    if not np.any(generated):  # the package would divide by its level
        raise UnratedError("no utterance detected: the speech is silent")
    try:
        signals = (resample(samples, sample_rate, SAMPLE_RATE) for samples in (recorded, generated))
        return float(pesq(SAMPLE_RATE, *signals, "wb"))
    except NoUtterancesError as error:
        raise UnratedError("no utterance detected") from error
    except BufferTooShortError as error:
        raise UnratedError("shorter than a quarter of a second") from error
