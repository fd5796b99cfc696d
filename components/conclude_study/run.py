"""Writes the best settings of a study, its table and its plots, and ends its MLflow run."""

import json
from collections.abc import Sequence

from components.contracts import ConcludeStudyOutput, PrepareStudyOutput, StudyWorkerOutput
from components.results import Results
from components.state import State, read_json
from components.studies.attributes import PARENT_RUN, RUN
from components.studies.best import best_file, best_train_settings, best_trial
from components.studies.page import study_page
from components.studies.storage import StudyError
from components.studies.study import arguments_of, load_study
from components.studies.table import row
from components.tracking import client
from model.files import write_json, write_text

METRICS = "metrics.json"


def run(prepared: str, workers: Sequence[str]) -> ConcludeStudyOutput:
    """Concludes a study whose workers have ended.

    Args:
        prepared: Path of the `PrepareStudyOutput`.
        workers: Paths of the `StudyWorkerOutput`s.

    Raises:
        StudyError: no trial is feasible. The page exists nevertheless, and the MLflow run ends as failed.
    """
    name, state = PrepareStudyOutput.read(prepared).study, State.locate()
    for worker in workers:
        StudyWorkerOutput.read(worker)
    study = load_study(state, name)
    folder = state.folder("studies", name)
    page = write_text(folder / "study.html", study_page(study))
    tracking, parent = client(state), study.user_attrs[PARENT_RUN]
    tracking.log_artifact(parent, str(page))
    for trial in study.get_trials(deepcopy=False):
        if run_id := trial.user_attrs.get(RUN):
            tracking.set_tag(run_id, "optuna.state", row(trial).state)
    try:
        best = best_trial(study)
    except StudyError:
        tracking.set_terminated(parent, status="FAILED")
        raise
    file = write_text(folder / "best.yaml", best_file(study))
    objectives = arguments_of(study).settings.study.objectives
    trials = [row(trial) for trial in study.get_trials(deepcopy=False)]
    metrics = {
        **dict(zip(objectives, best.values, strict=True)),
        "trials": float(len(trials)),
        "complete": float(sum(item.state in ("complete", "infeasible") for item in trials)),
        "seconds": sum(item.seconds for item in trials),
    }
    write_json(folder / METRICS, metrics)
    for metric, value in metrics.items():
        tracking.log_metric(parent, metric, value)
    tracking.log_artifact(parent, str(file))
    tracking.set_tag(parent, "optuna.best_trial", str(best.number))
    tracking.set_terminated(parent, status="FINISHED")
    values = ", ".join(f"{objective} {value:.4f}" for objective, value in zip(objectives, best.values, strict=True))
    return ConcludeStudyOutput(
        summary=f"best of {len(trials)} trials: {best.number}, {values}",
        study=name,
        trial=str(best.number),
        page=page,
        best=file,
        train_settings=best_train_settings(study).to_json(),
        origin=json.dumps({"optuna.study": name, "optuna.trial": str(best.number)}),
    )


def results(output: ConcludeStudyOutput) -> Results:
    """Returns the values of the best trial, and the page with all trials and their plots."""
    return Results(metrics=read_json(output.page.parent / METRICS), html=output.page)
