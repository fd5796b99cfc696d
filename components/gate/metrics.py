"""The metrics that decide on a promotion, read from an evaluation's `metrics.json`."""

from collections.abc import Mapping
from typing import Any

LOWER_IS_BETTER = {
    "mel_cepstral_distortion": True,
    "character_error_increase": True,
    "alignment_monotonicity": False,
}


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
