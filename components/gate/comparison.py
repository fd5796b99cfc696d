"""Non-inferiority of a candidate: paired differences per sentence against the best champion so far, with intervals."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from components.gate.checks import FAILED, NOT_APPLICABLE, PASSED, Check
from components.journal import Entry
from components.registry import PROMOTE, ROLLED_BACK, Version
from model.config.evaluation import RegistryConfig
from model.evaluation.metric_table import METRIC_TABLE
from model.evaluation.statistics import Estimate, estimate_mean, power, sentences_needed

COMPARED = (
    "character_error",
    "phone_error",
    "mel_cepstral_distortion",
    "pitch_error",
    "voicing_error",
    "length_error",
    "speaker_similarity",
    "dnsmos",
)
"""Metrics that candidate and champion are compared by."""
WITHOUT_RECORDING = ("character_error", "phone_error", "dnsmos")
"""Metrics that texts without recordings have too."""
BEST_IN = "best_in"
"""Tag of a version that an earlier version of this program promoted: metrics in which it is the reference."""

Evaluation = Mapping[str, Any]
"""Contents of `metrics.json`."""
Pairs = dict[str, tuple[float, float]]
"""Sentence -> value of the candidate and of the reference."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate against its reference in one metric, on the sentences that neither has seen.

    Attributes:
        metric: One of `COMPARED`.
        reference: Version number of the reference.
        margin: Largest accepted change for the worse.
        result: `pass`, `fail` or `not applicable`.
        reason: The numbers behind the result, or why the metric does not apply.
        candidate_value, reference_value, champion_value: Means over the compared sentences; None where there is none.
        difference: Candidate minus reference.
        low, high: 95 % interval of the difference.
        sentences: Number of different sentences.
        needed: Number of sentences with which an equal voice passes all comparisons with a probability of 95 %.
        power: Probability that an equal voice passes this comparison with `sentences` sentences.
        superior: Whether the whole interval is better than the reference.
    """

    metric: str
    reference: str
    margin: float
    result: str = NOT_APPLICABLE
    reason: str
    candidate_value: float | None = None
    reference_value: float | None = None
    champion_value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    sentences: int = 0
    needed: int = 0
    power: float = 0.0
    superior: bool = False

    @property
    def check(self) -> Check:
        """The comparison as a check of the gate."""
        name = f"{self.metric.replace('_', ' ')} against version {self.reference}"
        return Check(name, self.result, self.reason)

    @property
    def regression(self) -> float:
        """Change for the worse in units of the margin; negative where the candidate is better."""
        if self.difference is None:
            return -math.inf
        return METRIC_TABLE[self.metric].worsening(self.difference) / self.margin


def compare(
    candidate: Evaluation,
    references: Mapping[str, tuple[str, Evaluation]],
    champion: Evaluation,
    config: RegistryConfig,
) -> list[Comparison]:
    """Compares a candidate with its reference in every metric; the largest regression comes first.

    A comparison passes where the worse end of the 95 % interval of the difference is within the margin, so that a voice
    that is worse by more than the margin hardly ever passes (`benchmarks/promotion.py`).

    Args:
        candidate: Its evaluation.
        references: Metric -> version number and evaluation of the reference.
        champion: Evaluation of the current champion, for the table.
        config: The margins.
    """
    pairs = {metric: paired(metric, candidate, reference) for metric, (_, reference) in references.items()}
    compared = sum(bool(values) for values in pairs.values())
    rows = []
    for metric, (number, reference) in references.items():
        margin = float(getattr(config, f"{metric}_margin"))
        if reason := _why_not(metric, candidate, reference, len(pairs[metric]), config.min_sentences):
            rows.append(Comparison(metric=metric, reference=number, margin=margin, reason=reason))
            continue
        champion_pairs = paired(metric, candidate, champion)
        champion_values = [champion_pairs[sentence][1] for sentence in pairs[metric] if sentence in champion_pairs]
        rows.append(_judge(metric, number, margin, pairs[metric], champion_values, compared, config.min_sentences))
    return sorted(rows, key=lambda row: row.regression, reverse=True)


def best_versions(
    history: Iterable[Entry], versions: Iterable[Version], champion: str, candidate: str = ""
) -> dict[str, str]:
    """Returns the version number of the best champion so far in each metric.

    A champion becomes the reference of a metric when it is better there than the reference before it, beyond the
    interval of the difference. A sequence of slightly worse candidates can therefore lose at most one margin in total.
    A promotion that was rolled back does not count. A forced promotion makes its version the only reference.

    Args:
        history: All changes of the model, oldest first.
        versions: All versions of the model.
        champion: Version number of the champion, the reference of metrics in which no version is the best.
        candidate: Version that is judged, and is no reference of itself.
    """
    tags = {version.number: version.tags for version in versions}
    best = dict.fromkeys(COMPARED, champion)
    for operation in (entry.operation for entry in history if entry.counts and entry.operation.action == PROMOTE):
        number = operation.version
        if ROLLED_BACK in tags.get(number, {}):
            continue
        if operation.forced:
            best = dict.fromkeys(COMPARED, champion)
        if number in tags and number != candidate:
            old = tuple(tags[number].get(BEST_IN, "").split())
            marks = COMPARED if operation.forced else old if operation.best_in is None else operation.best_in
            best.update({metric: number for metric in marks if metric in best})
    return best


def best_in(rows: Iterable[Comparison] | None) -> tuple[str, ...]:
    """Returns the metrics in which a new champion becomes the reference; a first champion (None) is best in all."""
    if rows is None:
        return COMPARED
    return tuple(row.metric for row in rows if row.superior)


def paired(metric: str, candidate: Evaluation, reference: Evaluation) -> Pairs:
    """Returns the values of both voices on each unseen sentence that both have; means over speakers who share it."""
    ours, theirs = values_of_metric(metric, candidate), values_of_metric(metric, reference)
    keys = ours.keys() & theirs.keys()
    if metric == "phone_error":
        keys &= _without_character_error(candidate)
    groups: dict[str, list[tuple[float, float]]] = {}
    for key in sorted(keys):
        groups.setdefault(key[0], []).append((ours[key], theirs[key]))
    return {
        sentence: (_mean(mine for mine, _ in values), _mean(other for _, other in values))
        for sentence, values in groups.items()
    }


def values_of_metric(metric: str, evaluation: Evaluation) -> dict[tuple[str, str], float]:
    """Returns (sentence, clip) -> value of a metric on unseen sentences; none where the metric does not apply."""
    if metric == "character_error" and evaluation["gate"]["character_error_increase"]["value"] is None:
        return {}  # the recognizer cannot transcribe the recordings either
    values = {
        (clip["sentence"], clip["id"]): clip["metrics"].get(metric, {}).get("synthesised", {}).get("value")
        for clip in evaluation["clips"]
        if clip["part"] == "unseen"
    }
    if metric in WITHOUT_RECORDING:
        values |= {(text["sentence"], "text"): text.get(metric, {}).get("value") for text in evaluation["texts"]}
    return {key: value for key, value in values.items() if value is not None}


def _without_character_error(evaluation: Evaluation) -> set[tuple[str, str]]:
    """Returns the (sentence, clip) in languages without character error rate, in which the phone error rate decides."""
    known = values_of_metric("character_error", evaluation)
    languages = _languages(evaluation)
    understood = {languages[key] for key in known}
    return {key for key, language in languages.items() if language not in understood}


def _languages(evaluation: Evaluation) -> dict[tuple[str, str], str]:
    """Returns (sentence, clip) -> language of the unseen sentences and of the texts without recordings."""
    clips = {
        (clip["sentence"], clip["id"]): clip["language"] for clip in evaluation["clips"] if clip["part"] == "unseen"
    }
    return clips | {(text["sentence"], "text"): text["language"] for text in evaluation["texts"]}


def _why_not(metric: str, candidate: Evaluation, reference: Evaluation, sentences: int, min_sentences: int) -> str:
    """Returns why a metric does not apply; '' where it does.

    Too few sentences of some languages are no reason to promote nothing: the other metrics are of all languages.
    """
    if metric == "phone_error":
        if not _without_character_error(candidate):
            return "all sentences are in languages with a character error rate, which decides"
        if 0 < sentences < min_sentences:
            return (
                f"{sentences} sentences are in languages without character error rate; registry.min_sentences asks for "
                f"{min_sentences}"
            )
    if sentences:
        return ""
    if metric in ("character_error", "phone_error"):
        for evaluation in (candidate, reference):
            if reason := evaluation["gate"][f"{metric}_increase"]["reason"]:
                return str(reason)
    return "there is no sentence that both voices have a value of and neither has seen"


def _judge(
    metric: str,
    reference: str,
    margin: float,
    pairs: Pairs,
    champion_values: list[float],
    compared: int,
    min_sentences: int,
) -> Comparison:
    ours, theirs = (_mean(values) for values in zip(*pairs.values(), strict=True))
    estimate = estimate_mean([mine - other for mine, other in pairs.values()])
    worst = max(map(METRIC_TABLE[metric].worsening, (estimate.low, estimate.high)))
    enough = estimate.count >= min_sentences
    passed = enough and worst <= margin
    needed = max(min_sentences, sentences_needed(estimate.deviation, margin, compared)) if enough else min_sentences
    return Comparison(
        metric=metric,
        reference=reference,
        margin=margin,
        result=PASSED if passed else FAILED,
        reason=_reason(ours, theirs, estimate, margin, needed, enough),
        candidate_value=ours,
        reference_value=theirs,
        champion_value=_mean(champion_values) if champion_values else None,
        difference=estimate.mean,
        low=estimate.low if enough else None,
        high=estimate.high if enough else None,
        sentences=estimate.count,
        needed=needed,
        power=power(estimate.deviation, margin, estimate.count) if enough else 0.0,
        superior=enough and worst < 0.0,
    )


def _reason(ours: float, theirs: float, estimate: Estimate, margin: float, needed: int, enough: bool) -> str:
    numbers = f"{ours:.3f} against {theirs:.3f}, difference {estimate.mean:+.3f}"
    if not enough:
        return (
            f"{numbers}, on {estimate.count} sentences that neither voice has seen; registry.min_sentences asks for "
            f"{needed}: add recordings, or raise evaluation.max_clips and evaluation.max_seconds"
        )
    numbers += f" ({estimate.low:+.3f} to {estimate.high:+.3f}), margin {margin:g}, {estimate.count} sentences"
    if estimate.count >= needed:
        return numbers
    chance = power(estimate.deviation, margin, estimate.count)
    return f"{numbers}; an equal voice passes with a probability of {chance:.0%}, with {needed} sentences of 95%"


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
