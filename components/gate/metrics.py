"""The metrics with fixed limits, read from an evaluation's `metrics.json`."""

from collections.abc import Mapping
from typing import Any

from model.evaluation.metric_table import GATE_METRICS


def reasons(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns why each metric of the gate that does not apply has no value.

    Args:
        metrics: Contents of `metrics.json`.
    """
    return {name: metrics["gate"][name]["reason"] for name in GATE_METRICS if metrics["gate"][name]["value"] is None}


def gate_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the metrics of the gate; `None` means that a metric does not apply, which is neither good nor bad.

    Args:
        metrics: Contents of `metrics.json`.
    """
    return {name: metrics["gate"][name]["value"] for name in GATE_METRICS}
