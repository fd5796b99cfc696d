"""The step that concludes a study: page, best settings, and the end of its MLflow run."""

import json

import pytest
import yaml

from components import tracking
from components.conclude_study.run import results, run
from components.contracts import PrepareStudyOutput, StudyWorkerOutput
from components.studies.attributes import PARENT_RUN, RUN
from components.studies.storage import StudyError
from components.studies.worker import work


def conclude(study, folder):
    name = study.study_name
    prepared = PrepareStudyOutput(summary="", study=name).write(folder / "prepared.json")
    workers = [
        StudyWorkerOutput(summary="", study=name, worker=f"{number}/2").write(folder / f"worker-{number}.json")
        for number in (1, 2)
    ]
    return run(str(prepared), [str(path) for path in workers])


def test_the_best_settings_are_handed_on_and_the_mlflow_run_is_finished(begin, fake, state, tmp_path):
    context, study = begin({"study.trials": 3, "study.rungs": 1})
    work(context, study)
    output = conclude(study, tmp_path)
    best = study.best_trial
    train_settings = json.loads(output.train_settings)
    assert train_settings["loss"]["mel_loss_weight"] == best.params["loss.mel_loss_weight"]
    assert json.loads(output.origin) == {"optuna.study": study.study_name, "optuna.trial": str(best.number)}
    assert yaml.safe_load(output.best.read_text())["loss"] == {"mel_loss_weight": best.params["loss.mel_loss_weight"]}
    assert results(output).metrics["mel"] == best.value
    client = tracking.client(state)
    parent = client.get_run(study.user_attrs[PARENT_RUN])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["complete"] == 3
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {"study.html", "best.yaml"}
    children = [client.get_run(trial.user_attrs[RUN]) for trial in study.get_trials()]
    assert {child.data.tags["optuna.state"] for child in children} == {"complete"}


def test_a_study_without_a_feasible_trial_has_a_page_nevertheless_and_its_mlflow_run_fails(
    begin, fake, state, tmp_path
):
    fake.sharpness = 0.1
    context, study = begin({"study.trials": 2, "study.rungs": 1})
    work(context, study)
    with pytest.raises(StudyError, match="aligns text and audio"):
        conclude(study, tmp_path)
    assert "infeasible" in (context.folder / "study.html").read_text()
    assert tracking.client(state).get_run(study.user_attrs[PARENT_RUN]).info.status == "FAILED"
