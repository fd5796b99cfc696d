"""Perceptual quality by PESQ (ITU-T P.862.2), where its package is installed: an extra, since it is compiled C."""

from __future__ import annotations

import importlib.util

import numpy as np

from model.audio.io import resample
from model.errors import VocoderError

INSTALLED = importlib.util.find_spec("pesq") is not None


ABSENT = "pesq is not measured: its package is not installed (pip install 'myxtts[quality]')"


RATE = 16000
"""Of wide-band PESQ, Hz."""


class UnratedError(VocoderError):
    """PESQ has no value for this speech; the message says why."""


def wide_band_pesq(made: np.ndarray, recorded: np.ndarray, rate: int) -> float:
    """Quality of speech beside its recording, from 1 (bad) to 4.64 (the same).

    Args:
        made, recorded: Samples (N,) of equal length.
        rate: Of both, Hz.

    Raises:
        UnratedError: no utterance is found in one of them, or they are shorter than a quarter of a second.
    """
    from pesq import BufferTooShortError, NoUtterancesError, pesq

    if not np.any(made):  # the package would divide by its level
        raise UnratedError("no utterance detected: the speech is silent")
    try:
        return float(pesq(RATE, *(resample(samples, rate, RATE) for samples in (recorded, made)), "wb"))
    except NoUtterancesError as error:
        raise UnratedError("no utterance detected") from error
    except BufferTooShortError as error:
        raise UnratedError("shorter than a quarter of a second") from error
