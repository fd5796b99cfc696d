"""Results of a study: the best settings, the table and the page."""

import re

import pytest
import yaml
from optuna.trial import create_trial

from components.studies.attributes import BASELINE, USED
from components.studies.best import best_file, best_settings, best_train_settings, best_trial
from components.studies.page import study_page
from components.studies.storage import StudyError
from components.studies.table import best_trials, overview, trial_line
from components.studies.worker import work
from model.config.resolution import flatten, resolve

pytestmark = pytest.mark.usefixtures("without_mlflow")


def test_the_best_file_holds_what_the_study_decided_and_nothing_else(begin, fake, tmp_path):
    """With the settings that all trials had by choice, without the corpus and the budget of trials."""
    context, study = begin(
        {
            "study.rungs": 1,
            "corpus.path": "/data/recordings",
            "corpus.format": "ljspeech",
            "model.dropout": 0.3,
            "training.max_steps": 77,
            "training.num_threads": 2,
            "training.start_from": "models:/base/1",
            "training.start_from_sha256": "a" * 64,
        }
    )
    work(context, study)
    file = tmp_path / "best.yaml"
    file.write_text(best_file(study))
    best = best_trial(study)
    assert flatten(yaml.safe_load(file.read_text())) == {
        "model_size": "xtiny",
        "optimization_level": "enhanced",
        "model.dropout": 0.3,
        "training.start_from": "models:/base/1",
        "training.start_from_sha256": "a" * 64,
        **best.user_attrs[USED],
    }
    # A run with the file trains as the trial did, apart from its budget.
    reread = flatten(resolve(config_file=file).config.model_dump(mode="json"))
    assert {key: reread[key] for key in best.params} == best.params
    trained = best_train_settings(study)
    assert (trained.training.max_steps, trained.model.dropout) == (77, 0.3)
    assert trained.loss.mel_loss_weight == best.params["loss.mel_loss_weight"]
    assert best_settings(study)["training.batch_size"] == best.params["training.batch_size"]


def test_the_best_file_says_from_scratch_too(begin, fake):
    """`params.yaml` may say `auto`, which starts from a voice where there is one."""
    context, study = begin({"study.rungs": 1, "study.trials": 1})
    work(context, study)
    assert yaml.safe_load(best_file(study))["training"]["start_from"] == "none"


def test_no_best_without_a_complete_or_without_a_feasible_trial(begin, fake):
    context, study = begin({"study.trials": 2})
    with pytest.raises(StudyError, match="no complete trial"):
        best_trial(study)
    fake.sharpness = 0.0
    work(context, study)
    with pytest.raises(StudyError, match=r"none of the .* complete trials .*aligns text and audio"):
        best_trial(study)


def test_the_front_holds_the_trials_that_no_other_beats(begin):
    _, study = begin({"study.objectives": ["mel", "training_seconds"]})
    values = [(1.0, 9.0), (2.0, 5.0), (3.0, 6.0), (2.0, 5.0), (4.0, 1.0)]
    for pair in values:
        study.add_trial(create_trial(values=list(pair)))
    assert [tuple(trial.values) for trial in best_trials(study)] == [(1.0, 9.0), (2.0, 5.0), (2.0, 5.0), (4.0, 1.0)]


def test_the_overview_and_the_lines_of_the_table(begin, fake):
    context, study = begin({"study.max_steps": 90})
    work(context, study)
    shown = overview(study)
    assert (shown.trials, shown.finished) == (6, 6)
    assert shown.best == best_trial(study).value
    lines = [trial_line(trial) for trial in study.get_trials()]
    assert lines[0].endswith("baseline")
    assert {line.split()[2] for line in lines} == {"complete", "pruned"}


PLOTS = ["Rungs", "History", "Importance", "Slices", "Parallel coordinates"]


def test_the_page_of_a_new_study_says_what_is_missing(begin):
    _, study = begin()
    page = study_page(study)
    assert page.count("Nothing to plot yet: ") == len(PLOTS)
    assert re.findall(r"<h2>(.*)</h2>", page) == PLOTS


def test_the_page_shows_every_trial_and_every_plot(begin, fake, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    context, study = begin({"study.max_steps": 90})
    work(context, study)
    page = study_page(study)
    assert "Nothing to plot" not in page
    assert page.count("data:image/png;base64,") == len(PLOTS)
    assert page.count("<tr") == 1 + len(study.get_trials())
    assert page.count('class="best"') == 1
    assert "http://mlflow:5000/#/runs/parent" in page
    assert "@media (prefers-color-scheme: dark)" in page
    assert not re.search(r'(src|href)="(?!data:|http://mlflow:5000/)', page)  # self-contained


def test_the_page_of_several_objectives_shows_the_front(begin, fake):
    context, study = begin({"study.objectives": ["mel", "training_seconds"], "study.rungs": 1})
    work(context, study)
    page = study_page(study)
    assert re.findall(r"<h2>(.*)</h2>", page) == [*PLOTS[1:], "Pareto front"]
    assert "training time (s)" in page
    assert study.get_trials()[0].user_attrs[BASELINE]
