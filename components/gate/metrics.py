"""The metrics that decide on a promotion, read from an evaluation's `metrics.json`."""

from collections.abc import Mapping
from typing import Any

LOWER_IS_BETTER = {
    "mel_cepstral_distortion": True,
    "character_error_increase": True,
    "alignment_monotonicity": False,
}
UNITS = {
    "character_error": ("character error", "edits per letter", 3),
    "mel_cepstral_distortion": ("mel-cepstral distortion", "dB", 2),
    "pitch_error": ("pitch error", "cents", 0),
    "voicing_error": ("voicing error", "share of frames", 3),
    "length_error": ("length error", "share of the length", 3),
    "speaker_similarity": ("speaker similarity", "cosine, higher is better", 3),
    "dnsmos": ("predicted quality", "DNSMOS P.808, 1 to 5, higher is better", 2),
}
"""Compared metric -> its name, unit, and the number of decimals shown."""


def reasons(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns why each metric of the gate that does not apply has no value.

    Args:
        metrics: Contents of `metrics.json`.
    """
    return {name: metrics["gate"][name]["reason"] for name in LOWER_IS_BETTER if metrics["gate"][name]["value"] is None}


def gate_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the metrics of the gate; `None` means that a metric does not apply, which is neither good nor bad.

    Args:
        metrics: Contents of `metrics.json`.
    """
    return {name: metrics["gate"][name]["value"] for name in LOWER_IS_BETTER}
