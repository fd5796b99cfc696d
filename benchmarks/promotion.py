"""Measures the gate's pass rate by the true difference of two voices, and the drift over ten promotions.

    python -m benchmarks.promotion
    python -m benchmarks.promotion --evaluations <folder>

Simulated voices differ by a known amount in one metric; their values on a sentence vary as those of real voices do.
With `--evaluations`, a folder of one `metrics.json` per voice (`myxtts evaluate`, all of the same sentences), the
differences between real voices are resampled instead: the mean over all sentences is the true difference, and the gate
sees as many sentences as the evaluation of a run has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np

from components.gate.comparison import COMPARED, Comparison, best_in, compare, paired
from model.config.evaluation import RegistryConfig
from model.evaluation.metric_table import METRIC_TABLE

DEVIATIONS = {
    "character_error": 0.12,
    "phone_error": 0.07,
    "mel_cepstral_distortion": 0.35,
    "pitch_error": 70.0,
    "voicing_error": 0.045,
    "length_error": 0.06,
    "speaker_similarity": 0.05,
    "dnsmos": 0.15,
}
"""Metric -> standard deviation over sentences of the difference between two voices."""
USUAL = {
    "character_error": 0.2,
    "phone_error": 0.6,
    "mel_cepstral_distortion": 5.0,
    "pitch_error": 250.0,
    "voicing_error": 0.2,
    "length_error": 0.1,
    "speaker_similarity": 0.8,
    "dnsmos": 3.0,
}
CONFIG = RegistryConfig()
Rows = Mapping[str, np.ndarray]


def margin(metric: str) -> float:
    """Returns the margin of a metric, negative where higher values are better: a difference at the limit."""
    return float(getattr(CONFIG, f"{metric}_margin")) * METRIC_TABLE[metric].worsening(1.0)


def evaluation(rows: Rows) -> dict[str, Any]:
    """Returns a `metrics.json` with these values on unseen sentences."""
    count = len(next(iter(rows.values())))
    clips = [
        {
            "id": str(number),
            "sentence": str(number),
            "part": "unseen",
            "language": "en",
            "metrics": {name: {"synthesised": {"value": float(values[number])}} for name, values in rows.items()},
        }
        for number in range(count)
    ]
    gate = {name: {"value": 0.0, "reason": ""} for name in ("character_error_increase", "phone_error_increase")}
    return {"gate": gate, "clips": clips, "texts": []}


def decide(ours: Rows, theirs: Mapping[str, np.ndarray]) -> list[Comparison]:
    """Returns the comparison of two voices by the values of their sentences."""
    reference = evaluation(theirs)
    return compare(evaluation(ours), dict.fromkeys(ours, ("1", reference)), reference, CONFIG)


def simulated_voice(random: np.random.Generator, means: Mapping[str, float], count: int) -> dict[str, np.ndarray]:
    """Returns the values of a voice on `count` sentences, around its true means.

    Half of the sentences have no character error of their own, the others twice as much, as recognizers have it.
    """
    rows = {}
    for metric, mean in means.items():
        noise = random.standard_normal(count)
        if metric == "character_error":
            noise = random.gamma(0.5, 1.0, count) - 0.5
            noise /= np.sqrt(0.5)
        rows[metric] = mean + DEVIATIONS[metric] / np.sqrt(2.0) * noise
    return rows


def needed() -> int:
    """Returns the number of sentences that the most demanding metric needs."""
    from model.evaluation.statistics import sentences_needed

    return max(sentences_needed(DEVIATIONS[name], abs(margin(name)), len(COMPARED)) for name in COMPARED)


def pass_rates(trials: int, count: int, shares: tuple[float, ...]) -> dict[str, list[float]]:
    """Returns how often a voice passes that is worse in one metric, by metric and difference in margins.

    `all` are equal voices, which must pass every comparison.
    """
    random = np.random.default_rng(0)
    rates: dict[str, list[float]] = {}
    for metric in COMPARED:
        rates[metric] = []
        for share in shares:
            means = {metric: USUAL[metric]}
            worse = {metric: USUAL[metric] + share * margin(metric)}
            passed = [
                decide(simulated_voice(random, worse, count), simulated_voice(random, means, count))[0].result == "pass"
                for _ in range(trials)
            ]
            rates[metric].append(float(np.mean(passed)))
    equal = [
        all(
            row.result != "fail"
            for row in decide(simulated_voice(random, USUAL, count), simulated_voice(random, USUAL, count))
        )
        for _ in range(trials)
    ]
    rates["all"] = [float(np.mean(equal))]
    return rates


def drift(trials: int, count: int, rounds: int, step: float, bounded: bool) -> np.ndarray:
    """Returns the loss in margins after some rounds of candidates, each worse than the champion.

    Args:
        trials: Number of simulated histories.
        count: Sentences per comparison.
        rounds: Number of candidates.
        step: How much worse than the current champion each candidate is, in margins, in every metric.
        bounded: Whether the reference is the best champion so far; otherwise the last one.

    Returns:
        (trials,) loss of the metric that lost most.
    """
    random = np.random.default_rng(1)
    losses = []
    for _ in range(trials):
        champion = dict.fromkeys(COMPARED, 0.0)  # loss of the champion, in margins
        best = dict(champion)
        for _ in range(rounds):
            candidate = {metric: loss + step for metric, loss in champion.items()}
            reference = best if bounded else champion
            rows = decide(*(simulated_voice(random, _means(losses), count) for losses in (candidate, reference)))
            if all(row.result != "fail" for row in rows):
                champion = candidate
                best.update({metric: candidate[metric] for metric in best_in(rows)})
        losses.append(max(champion.values()))
    return np.array(losses)


def _means(losses: Mapping[str, float]) -> dict[str, float]:
    return {metric: USUAL[metric] + loss * margin(metric) for metric, loss in losses.items()}


def real_pairs(folder: Path, count: int, trials: int) -> list[dict[str, Any]]:
    """Returns the true difference in margins, its deviation, and the pass rate of every pair of evaluated voices."""
    found = {path.parent.name: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/metrics.json"))}
    random = np.random.default_rng(2)
    pairs = []
    for first, second in permutations(found, 2):
        for metric in COMPARED:
            values = np.array(list(paired(metric, found[first], found[second]).values()))
            if not len(values):
                continue
            difference = values[:, 0] - values[:, 1]
            chosen = [random.integers(len(values), size=count) for _ in range(trials)]
            passed = [
                decide({metric: values[rows, 0]}, {metric: values[rows, 1]})[0].result == "pass" for rows in chosen
            ]
            pairs.append(
                {
                    "candidate": first,
                    "champion": second,
                    "metric": metric,
                    "sentences": len(values),
                    "margins": float(difference.mean() / margin(metric)),
                    "deviation": float(difference.std(ddof=1)),
                    "passed": float(np.mean(passed)),
                }
            )
    return pairs


def print_real(pairs: list[dict[str, Any]], count: int) -> None:
    """Prints the pass rate by true difference, and the deviation of the differences, per metric."""
    bounds = (-np.inf, -0.5, 0.0, 0.5, 1.0, 1.5, np.inf)
    print(f"\nreal pairs, {count} sentences per comparison: pass rate by true difference in margins (pairs)")
    print(f"{'':26}" + "".join(f"{f'{low:g} to {high:g}':>14}" for low, high in pairwise(bounds)))
    for metric in COMPARED:
        cells = []
        for low, high in pairwise(bounds):
            inside = [pair["passed"] for pair in pairs if pair["metric"] == metric and low <= pair["margins"] < high]
            cells.append(f"{np.mean(inside):.2f} ({len(inside)})" if inside else "-")
        deviations = [pair["deviation"] for pair in pairs if pair["metric"] == metric]
        if deviations:
            print(f"{metric:26}" + "".join(f"{cell:>14}" for cell in cells), end="")
            print(f"   deviation {np.median(deviations):.3g}, margin {abs(margin(metric)):g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400, help="simulated comparisons per number")
    parser.add_argument("--evaluations", type=Path, help="folder of evaluations, one folder per voice")
    parser.add_argument("--sentences", type=int, default=18, help="sentences per comparison of real voices")
    arguments = parser.parse_args()
    if arguments.evaluations:
        print_real(real_pairs(arguments.evaluations, arguments.sentences, arguments.trials), arguments.sentences)
        return
    count, shares = needed(), (0.0, 0.5, 1.0, 1.5, 2.0)
    print(f"{count} sentences, pass rate by true difference in margins")
    print(f"{'':26}" + "".join(f"{share:>8g}" for share in shares))
    for metric, rates in pass_rates(arguments.trials, count, shares).items():
        print(f"{metric:26}" + "".join(f"{rate:8.3f}" for rate in rates))
    print("\nloss after ten candidates, each worse than the champion in every metric, in margins: median, 95 %, most")
    for bounded in (True, False):
        for step in (0.1, 0.25, 0.5):
            losses = drift(max(20, arguments.trials // 10), count, 10, step, bounded)
            reference = "best so far" if bounded else "last champion"
            print(
                f"reference {reference:14} steps of {step:<5g}{np.median(losses):6.2f}{np.quantile(losses, 0.95):6.2f}"
                f"{losses.max():6.2f}"
            )


if __name__ == "__main__":
    main()
