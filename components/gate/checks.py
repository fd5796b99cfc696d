"""Checks of the gate: a candidate's metrics against the fixed limits of `registry`."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.config.evaluation import RegistryConfig
from model.evaluation.metric_table import METRIC_TABLE

PASSED, FAILED, NOT_APPLICABLE = "pass", "fail", "not applicable"


@dataclass(frozen=True)
class Check:
    """One check of the gate.

    Attributes:
        name: Subject of the check.
        result: `pass`, `fail` or `not applicable`.
        reason: The numbers behind the result.
    """

    name: str
    result: str
    reason: str

    def __str__(self) -> str:
        return f"{self.result}: {self.reason}"


def threshold_checks(
    metrics: Mapping[str, float | None], config: RegistryConfig, why_not: Mapping[str, str] | None = None
) -> list[Check]:
    """Returns the checks of the candidate's metrics against the thresholds of `registry`.

    Args:
        metrics: Value of each metric; `None` where it does not apply.
        config: The thresholds.
        why_not: Reason of each metric that does not apply, as the evaluation states it.
    """
    why_not = why_not or {}
    limits = {
        "mel_cepstral_distortion": config.max_mel_cepstral_distortion,
        "character_error_increase": config.max_character_error_increase,
        "phone_error_increase": config.max_phone_error_increase,
        "alignment_monotonicity": config.min_alignment_monotonicity,
    }
    checks = []
    for name, limit in limits.items():
        value = metrics[name]
        lower = METRIC_TABLE[name].lower_is_better
        sign = "at most" if lower else "at least"
        if value is None:
            checks.append(
                Check(name.replace("_", " "), NOT_APPLICABLE, why_not.get(name) or "was not measured on this corpus")
            )
            continue
        good = value <= limit if lower else value >= limit  # False for NaN
        checks.append(
            Check(name.replace("_", " "), PASSED if good else FAILED, f"{value:.3f}, must be {sign} {limit:g}")
        )
    if all(value is None for value in metrics.values()):
        checks.append(Check("measured at all", FAILED, "no metric of the gate applies to this corpus"))
    return checks
