"""Measures how much training successive halving saves in a study, and whether the best trial is as good.

Runs two studies with the same random trials on the same data, one that trains every trial to its end and one with
rungs, and prints optimizer steps, seconds and the best values of both. The trials that the second one completes end
with the same errors as in the first, since promoted trials resume from their checkpoints.

    python -m benchmarks.halving --data <folder> --start-from <voice> --trials 12 --max-steps 100
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from components.studies.study import create_study, load_study
from components.studies.table import best_trials, row
from pipelines.project import open_project
from pipelines.study import join_study


def measure(data: Path | None, start_from: str, trials: int, max_steps: int, rungs: int, space: list[str]) -> dict:
    """Runs a study with this number of rungs; returns its steps, its time and the best values."""
    settings: dict[str, Any] = {
        "training.start_from": start_from,
        "study.trials": trials,
        "study.max_steps": max_steps,
        "study.rungs": rungs,
        "study.sampler": "random",
        "study.space": space,
        "study.name": f"halving-{trials}-{max_steps}-{rungs}",
    }
    project = open_project(data, None, settings)
    project.make_data()
    arguments = project.study_arguments()
    create_study(project.state, arguments)
    join_study(project.state, arguments.study, lambda line: print(line, file=sys.stderr, flush=True))
    study = load_study(project.state, arguments.study)
    rows = [row(trial) for trial in study.get_trials(deepcopy=False)]
    (best, *_) = best_trials(study)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {
        "rungs": rungs,
        "trials": len(rows),
        "complete": len(complete),
        "steps": sum(item.steps for item in rows),
        "seconds": round(sum(item.seconds for item in rows), 1),
        "best": best.value,
        "best_trial": best.number,
        "values": {trial.number: trial.value for trial in complete},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of recordings [default: the corpus of params.yaml]")
    parser.add_argument("--start-from", default="none", help="base voice")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--max-steps", type=int, default=100, help="steps of a trial at the largest batch")
    parser.add_argument("--space", nargs="*", default=["loss.mel_loss_weight", "training.learning_rate"])
    given = parser.parse_args()
    found = [
        measure(given.data, given.start_from, given.trials, given.max_steps, rungs, given.space) for rungs in (1, 3)
    ]
    whole, halved = found
    saved = 1 - halved["steps"] / whole["steps"]
    print(json.dumps({"whole": whole, "halved": halved, "saved_steps": round(saved, 3)}, indent=1))


if __name__ == "__main__":
    main()
