"""Identity of a study: which settings start another one, which are refused, how studies are found."""

import json

import pytest
from small_study import DATA, study_arguments

from components.database_urls import DatabaseError
from components.studies import storage as storage_module
from components.studies.identity import ELSEWHERE, identity
from components.studies.space import BUDGET
from components.studies.storage import StudyError
from components.studies.study import arguments_of, create_study, load_studies, load_study
from components.studies.table import overview
from model.config.data import PreprocessSettings
from model.config.resolution import flatten

pytestmark = pytest.mark.usefixtures("without_mlflow")


def name(**changes) -> str:
    return study_arguments({key.replace("__", "."): value for key, value in changes.items()}).study


@pytest.mark.parametrize(
    "changes",
    [
        {"model_size": "tiny"},
        {"study__max_steps": 40},
        {"study__rungs": 1},
        {"study__space": ["training.learning_rate"]},
        {"study__space": ["loss.mel_loss_weight=2.5:4", "training.batch_size"]},
        {"study__objectives": ["mel", "training_seconds"]},
        {"study__sampler": "tpe"},
        {"training__start_from_sha256": "a" * 64},
        {"training__weight_decay": 0.5},
        {"model__dropout": 0.3},
        {"features__pitch_fmax": 400.0},
        {"seed": 7},
    ],
)
def test_whatever_trials_depend_on_starts_another_study(changes):
    assert name(**changes) != name()


@pytest.mark.parametrize(
    "changes",
    [
        {"study__trials": 40},
        {"study__workers": 1},
        {"training__num_threads": 2},
        {"training__max_steps": 77},
        {"loss__mel_loss_weight": 3.0},
        {"training__start_from": "/elsewhere"},
        {"registry__min_sentences": 9},
    ],
)
def test_whatever_they_do_not_depend_on_continues_it(changes):
    assert name(**changes) == name()


def test_a_bound_on_frames_is_part_of_the_identity_as_it_is_in_the_trials():
    """It follows from the batch size of a trial, so only frames per clip count where the batch size is searched."""
    bounded = name(training__batch_size=4, training__max_batch_frames=1024)
    assert name(training__batch_size=8, training__max_batch_frames=2048) == bounded
    assert name(training__batch_size=8, training__max_batch_frames=1024) != bounded


def test_other_data_start_another_study():
    assert study_arguments(data_hash="1" * 32 + ".dir").study != study_arguments().study


def test_every_setting_of_a_trial_is_part_of_the_identity_or_named_as_an_exception():
    arguments = study_arguments()
    settings = arguments.settings
    known = identity(settings, PreprocessSettings.from_json(arguments.preprocess_settings), DATA)
    missing = set(flatten(settings.model_dump())) - set(known)
    assert missing == {*ELSEWHERE, *BUDGET, *known["study.space"]} - {"training.warmup_steps"}


def test_a_named_study_refuses_other_settings_and_names_the_difference(begin):
    begin({"study.name": "mine"})
    with pytest.raises(StudyError, match=r"study mine .*study.max_steps is 40 instead of 9.*study run <name>"):
        begin({"study.name": "mine", "study.max_steps": 40})
    begin({"study.name": "mine", "study.trials": 9})
    assert len(load_study(begin.state, "mine").get_trials()) == 9


def test_a_study_stores_the_arguments_with_which_it_is_continued(begin):
    begin({"study.name": "mine"})
    arguments = arguments_of(load_study(begin.state, "mine"))
    assert arguments == study_arguments({"study.name": "mine"})
    more = arguments.with_amounts(20, 1).settings.study
    assert (more.trials, more.workers) == (20, 1)


def test_studies_are_found_by_their_name_and_the_newest_without(begin):
    with pytest.raises(StudyError, match="`myxtts study run` makes one"):
        load_study(begin.state)
    begin({"study.name": "first"})
    begin({"study.name": "second"})
    assert {study.study_name for study in load_studies(begin.state)} == {"first", "second"}
    assert load_study(begin.state, "first").study_name == "first"
    with pytest.raises(StudyError, match="there is no study third; there are: "):
        load_study(begin.state, "third")
    assert overview(load_study(begin.state, "first")).best is None


def test_a_study_of_another_version_is_refused(begin):
    import optuna

    optuna.create_study(study_name="old", storage=storage_module.storage(begin.state))
    with pytest.raises(StudyError, match="another version"):
        arguments_of(load_study(begin.state, "old"))


def test_a_journal_torn_by_a_kill_still_opens(begin):
    begin()
    with begin.state.study_journal.open("a") as file:
        file.write('{"op_code": 4, "tri')
    begin()
    assert len(load_study(begin.state).get_trials()) == 6
    assert all(json.loads(line) for line in begin.state.study_journal.read_text().splitlines())


def test_a_pod_without_a_database_is_refused(state, monkeypatch):
    monkeypatch.delenv(storage_module.STORAGE_VARIABLE, raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(StudyError, match=r"MYXTTS_STUDY_STORAGE.*cluster\.study_secret"):
        storage_module.storage(state)


@pytest.mark.parametrize("url", ["garbage", "postgresql+pg8000://u:p@127.0.0.1:9/db", "nosuch+driver://h/db"])
def test_a_database_that_cannot_be_used_is_named(state, monkeypatch, url):
    monkeypatch.setenv(storage_module.STORAGE_VARIABLE, url)
    with pytest.raises((StudyError, DatabaseError), match=storage_module.STORAGE_VARIABLE):
        storage_module.storage(state)


def test_the_mlflow_run_of_a_study_is_reopened_or_replaced(state, monkeypatch, request):
    from components import tracking
    from components.studies.attributes import PARENT_RUN

    monkeypatch.undo()
    monkeypatch.setenv("MYXTTS_STATE", str(state.root))
    monkeypatch.delenv("MYXTTS_STUDY_STORAGE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = tracking.client(state)
    first = create_study(state, study_arguments()).user_attrs[PARENT_RUN]
    client.set_terminated(first)
    assert create_study(state, study_arguments()).user_attrs[PARENT_RUN] == first
    assert client.get_run(first).info.status == "RUNNING"
