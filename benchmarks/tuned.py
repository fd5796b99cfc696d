"""Gain of a study: its best trial against its baseline, on sentences that neither training nor the study has seen.

If the baseline is the best trial, the second best one is compared with it. Both voices speak the sentences of the test
split, and texts without recordings. The study chose by the validation split, which is left out. Intervals are of 95 %,
of the mean of the differences per sentence.

    python -m benchmarks.tuned <study> --texts 60
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from components.feature_remote import open_store
from components.gate.comparison import COMPARED, paired
from components.state import State
from components.studies.attributes import BASELINE
from components.studies.objectives import MEL
from components.studies.study import StudyContext, load_study
from components.studies.table import complete_trials, is_feasible
from model.config.evaluation import EvaluateSettings
from model.evaluation.evaluate import evaluate
from model.evaluation.statistics import estimate_mean
from model.loop.reporting import read_history
from pipelines.study import fetch_data


def evaluated(context: StudyContext, trial: int, texts: int) -> dict[str, Any]:
    """Returns the metrics of a trial's voice on all clips of the test split, and on texts without recordings."""
    settings = EvaluateSettings.of(context.settings)
    limits = {"max_clips": 10_000, "max_training_clips": 1, "max_seconds": 1e6, "texts": texts}
    settings = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update=limits)})
    folder = context.folder / f"trial-{trial}"
    with tqdm(desc=f"trial {trial}", unit="step", file=sys.stderr, mininterval=5.0) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        store = open_store(context.features, context.state)
        found = evaluate(folder / "voice", store, context.corpus, settings, folder / "test", progress)
    return {**found, "clips": [clip for clip in found["clips"] if clip["split"] == "test"]}


def validation_mel(folder: Path) -> float:
    """Returns the mel error of the validation split at the end of a trial."""
    return float([record[MEL] for record in read_history(folder / "history.jsonl") if MEL in record][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="name of the study")
    parser.add_argument("--texts", type=int, default=60, help="number of texts without recordings")
    given = parser.parse_args()
    state = State.locate().prepare()
    study = load_study(state, given.study)
    context = fetch_data(state, study)
    ranked = sorted(filter(is_feasible, complete_trials(study)), key=lambda trial: trial.values)
    (baseline,) = (trial.number for trial in ranked if trial.user_attrs.get(BASELINE))
    other = next((trial.number for trial in ranked if trial.number != baseline), None)
    if other is None:
        sys.exit(f"no trial of {given.study} but its baseline is complete and feasible")
    voices = {trial: evaluated(context, trial, given.texts) for trial in (baseline, other)}
    rows = {}
    for metric in COMPARED:
        values = list(paired(metric, voices[other], voices[baseline]).values())
        if not values:
            continue
        estimate = estimate_mean([ours - theirs for ours, theirs in values])
        rows[metric] = {
            "baseline": sum(theirs for _, theirs in values) / len(values),
            "other": sum(ours for ours, _ in values) / len(values),
            "difference": estimate.mean,
            "interval": [estimate.low, estimate.high],
            "sentences": estimate.count,
        }
    mel = {trial: validation_mel(context.folder / f"trial-{trial}") for trial in voices}
    trials = {"best": ranked[0].number, "baseline": baseline, "other": other}
    print(json.dumps({**trials, MEL: mel, "held out": rows}, indent=1))


if __name__ == "__main__":
    main()
