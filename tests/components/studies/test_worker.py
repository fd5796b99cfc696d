"""Workers: the settings of a trial's training; no trial is lost, repeated or added."""

import json

import pytest
from optuna.trial import TrialState, create_trial

from components import tracking
from components.process_identity import this_process
from components.runner import EVENT
from components.studies import trials as trials_module
from components.studies import worker
from components.studies.attributes import PARENT_RUN, RUN, RUNG_VALUES, STEPS, USED, WORKER
from components.studies.storage import StudyError
from components.studies.table import row
from components.studies.trials import Halving, Next, counted, next_trials, rung_values
from components.studies.worker import Budget, trial_settings, work
from model.config.resolution import batch_range, flatten, presets, resolve
from model.config.study import StudySettings

pytestmark = pytest.mark.timeout(120)  # a trial that is lost lets the other workers wait for ever
without_mlflow = pytest.mark.usefixtures("without_mlflow")
SIZES = sorted(presets()[0])


def settings(**changes) -> StudySettings:
    return StudySettings.of(resolve(overrides={key.replace("__", "."): value for key, value in changes.items()}).config)


@pytest.mark.parametrize("size", SIZES)
def test_trials_of_every_batch_see_equally_many_samples(size):
    seen = []
    for batch in batch_range(size):
        training = trial_settings(settings(model_size=size), {"training.batch_size": batch})[0].training
        seen.append(training.max_steps * training.batch_size)
    assert seen[0] == pytest.approx(seen[1], rel=0.02)


@pytest.mark.parametrize(
    ("warm_up", "study_steps", "expected"), [(70, 400, 70), (70, 280, 70), (70, 120, 30), (0, 120, 0)]
)
def test_warm_up_takes_at_most_a_quarter_of_a_trial(warm_up, study_steps, expected):
    """The learning rate of a short trial would never reach the value that is searched."""
    study = settings(model_size="tiny", training__warmup_steps=warm_up, study__max_steps=study_steps)
    training = trial_settings(study, {"training.batch_size": batch_range("tiny")[1]})[0].training
    assert training.max_steps == study_steps
    assert training.warmup_steps == expected


@pytest.mark.parametrize(("rungs", "factor"), [(1, 3), (2, 2), (3, 3), (4, 2)])
def test_every_rung_ends_at_a_validation(rungs, factor):
    for steps in (1, 2, 9, 100, 301):
        budget = Budget(steps=steps, halving=Halving(rungs=rungs, factor=factor))
        interval = budget.settings(0)["training.evaluation_interval"]
        ends = [budget.halving.end(rung, steps) for rung in range(rungs)]
        assert all(end % interval == 0 or end == steps for end in ends)
        assert ends == sorted(ends)
        assert ends[-1] == steps


def test_a_study_from_its_baseline_to_its_best(begin, fake, state):
    searched = ["loss.mel_loss_weight", "training.batch_size", "training.learning_rate", "model.dropout"]
    searched.append("training.learning_rate_schedule=constant|cosine")
    context, study = begin({"study.rungs": 1, "study.space": searched})
    work(context, study)
    trials = study.get_trials(deepcopy=False)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    assert len(context.space) == 5

    # What was suggested is what the trainer was given, and what is stored is what it used.
    for trial, (config, _) in zip(trials, fake.calls, strict=True):
        used = flatten(config.model_dump())
        assert {key: used[key] for key in trial.params} == trial.params == trial.user_attrs[USED]
    assert len({config.loss.mel_loss_weight for config, _ in fake.calls}) == 6

    # The settings as they stood came first.
    defaults = flatten(context.settings.model_dump())
    assert trials[0].params == {key: defaults[key] for key in context.space}
    assert row(trials[0]).baseline

    # Every trial is a child of the study's MLflow run, with each of its values and its metrics.
    client = tracking.client(state)
    for trial in trials:
        run = client.get_run(trial.user_attrs[RUN])
        assert run.data.tags["mlflow.parentRunId"] == study.user_attrs[PARENT_RUN]
        logged = {key: run.data.params[key] for key in context.space}
        assert logged == {key: str(value) for key, value in trial.params.items()}
        assert "validation/mel" in run.data.metrics


@without_mlflow
def test_a_study_that_is_complete_trains_no_more_and_a_larger_one_only_what_it_lacks(begin, fake):
    work(*begin({"study.rungs": 1}))
    work(*begin({"study.rungs": 1}))
    assert len(fake.calls) == 6
    work(*begin({"study.rungs": 1, "study.trials": 8}))
    assert len(fake.calls) == 8


@without_mlflow
@pytest.mark.parametrize("rungs", [1, 3])
def test_interrupted_studies_end_with_the_trials_of_an_uninterrupted_one(begin, fake, rungs):
    """Values, errors and states are the same, and no step is trained twice."""

    def outcome(study):
        return [(trial.state, trial.params, trial.value, rung_values(trial)) for trial in study.get_trials()]

    changes = {"study.rungs": rungs}
    context, study = begin({**changes, "study.name": "at-once"})
    work(context, study)
    steps = fake.trained
    for validations in (3, 2):
        context, study = begin({**changes, "study.name": "interrupted"})
        fake.validations = validations
        with pytest.raises(KeyboardInterrupt):
            work(context, study)
    context, again = begin({**changes, "study.name": "interrupted"})
    work(context, again)
    _, study = begin({**changes, "study.name": "at-once"})
    assert outcome(again) == outcome(study)
    assert fake.trained == 2 * steps
    assert len(again.get_trials()) == 6


def test_a_trial_that_ends_before_its_first_rung_holds_up_no_other():
    """With large batches, a short trial has fewer steps than a rung."""
    trials = [
        create_trial(state=TrialState.COMPLETE, value=0.5),
        *(create_trial(state=TrialState.WAITING, user_attrs={RUNG_VALUES: [value]}) for value in (1.0, 2.0)),
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    halving = Halving(rungs=2, factor=2)
    assert next_trials(trials, halving) == (Next.PRUNE, trials[2:])
    trials[2].state = TrialState.PRUNED
    assert next_trials(trials, halving) == (Next.TRAIN, trials[1:2])


def test_no_trial_is_promoted_before_all_have_passed_the_rung():
    """A trial that is still trained in the rung may turn out to be the best of it."""
    trials = [
        create_trial(state=TrialState.RUNNING),
        *(create_trial(state=TrialState.WAITING, user_attrs={RUNG_VALUES: [value]}) for value in (1.0, 2.0)),
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    halving = Halving(rungs=2, factor=2)
    assert next_trials(trials, halving) == (Next.WAIT, [])
    trials[0].user_attrs = {RUNG_VALUES: [0.5]}
    assert next_trials(trials, halving) == (Next.PRUNE, trials[2:])


@without_mlflow
def test_promoted_trials_resume_from_their_checkpoints_and_the_rest_is_pruned(begin, fake):
    context, study = begin({"study.max_steps": 90, "study.trials": 9})
    work(context, study)
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert trials[0] in complete  # the baseline
    others = [trial for trial in trials[1:] if trial not in complete]
    best = min(trials[1:], key=lambda trial: abs(trial.params["loss.mel_loss_weight"] - 3))
    assert best in complete
    assert len(others) == 7
    # 9 trials to a ninth, 4 of them to a third, 2 of these to the end.
    whole = [trial_settings(context.settings, trial.params)[1].steps for trial in trials]
    assert fake.trained < 0.45 * sum(whole)
    starts = [done for _, done in fake.calls]
    assert starts.count(0) == 9
    assert all(start > 0 for start in starts[9:])


@without_mlflow
def test_progress_counts_trials_and_the_steps_within_a_rung(begin, fake, capsys):
    fake.failing = {1}
    context, study = begin({"study.trials": 3, "study.max_steps": 9})
    work(context, study)
    events = [json.loads(line.partition(EVENT)[2]) for line in capsys.readouterr().out.splitlines()]
    steps = trial_settings(context.settings, study.get_trials()[0].params)[1]
    end = steps.halving.end(0, steps.steps)
    first = {"step": "study_worker", "state": "progress", "done": 0, "total": 3}
    assert events[0] == {**first, "of trial 0 (rung 1 of 3)": f"{end}/{end}"}
    assert all(event["done"] < event["total"] == 3 for event in events)  # the failed trial counts no more


@without_mlflow
def test_rungs_that_end_while_their_worker_dies_are_not_trained_again(begin, fake, monkeypatch):
    context, study = begin({"study.trials": 2, "study.max_steps": 90})
    real = worker._pause

    def dying(trial, value):
        monkeypatch.setattr(worker, "_pause", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_pause", dying)
    with pytest.raises(KeyboardInterrupt):
        work(context, study)
    study._storage.set_trial_user_attr(study.get_trials()[0]._trial_id, STEPS, 0)  # the worker died before it said
    before = len(fake.calls)
    work(context, study)
    assert all(row(trial).steps for trial in study.get_trials())
    first_rung = [config for config, done in fake.calls[before:] if done == 0]
    assert len(first_rung) == 1  # of the other trial


@without_mlflow
def test_a_trial_that_fails_is_replaced_and_the_study_continues(begin, fake):
    fake.failing = {1}
    context, study = begin({"study.rungs": 1})
    work(context, study)
    states = [row(trial).state for trial in study.get_trials(deepcopy=False)]
    assert states.count("failed") == 1
    assert states.count("complete") == 6
    assert len(counted(study.get_trials(deepcopy=False))) == 6
    begin({"study.rungs": 1})
    assert len(counted(study.get_trials(deepcopy=False))) == 6  # continuing adds none


@without_mlflow
def test_a_study_whose_every_trial_fails_ends_with_the_reason(begin, fake):
    fake.failing = set(range(100))
    with pytest.raises(StudyError, match="3 trials in a row failed, the last one with: not finite"):
        work(*begin())


@without_mlflow
def test_an_error_of_the_program_loses_no_trial(begin, fake, monkeypatch):
    context, study = begin()

    def broken(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(worker, "train", broken)
    with pytest.raises(OSError, match="no space"):
        work(context, study)
    assert {trial.state for trial in study.get_trials()} == {TrialState.WAITING}


@without_mlflow
def test_trials_that_do_not_align_are_infeasible(begin, fake):
    fake.sharpness = 0.3
    context, study = begin({"study.rungs": 1, "study.trials": 2})
    work(context, study)
    assert {row(trial).state for trial in study.get_trials(deepcopy=False)} == {"infeasible"}
    context, study = begin({"study.rungs": 1, "study.trials": 2, "study.min_alignment_sharpness": 0.2})
    work(context, study)
    assert {row(trial).state for trial in study.get_trials(deepcopy=False)} == {"complete"}


@without_mlflow
def test_the_trial_of_a_dead_worker_on_this_machine_is_trained_at_once(begin, fake):
    """Even if another process has got the number of the dead one, as this one has here."""
    context, study = begin({"study.rungs": 1, "study.trials": 2})
    taken = trials_module.take(study._storage, study.get_trials(deepcopy=False))
    place, process, started = this_process().split()
    study._storage.set_trial_user_attr(taken._trial_id, WORKER, f"{place} {process} {int(started) - 1}")
    work(context, study)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE] * 2
    assert len(fake.calls) == 2


@without_mlflow
def test_the_trial_of_a_silent_worker_elsewhere_is_trained_after_a_while(begin, fake, monkeypatch):
    _, study = begin({"study.rungs": 1, "study.trials": 2})
    taken = trials_module.take(study._storage, study.get_trials(deepcopy=False))
    study._storage.set_trial_user_attr(taken._trial_id, WORKER, "elsewhere 7 1")
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(trials_module.time, "monotonic", lambda: next(clock))
    dead = trials_module.DeadWorkers()
    assert [dead.put_back(study, study._storage) for _ in range(3)] == [[], [], []]
    study._storage.set_trial_user_attr(taken._trial_id, "beat", 1)  # it lives
    assert [dead.put_back(study, study._storage) for _ in range(3)] == [[], [], []]
    assert [dead.put_back(study, study._storage)] == [[taken.number]]


@without_mlflow
def test_a_trial_that_ends_every_worker_is_given_up_and_replaced(begin, fake):
    """Without a limit, a trial that needs more memory than there is would end each worker of the study."""
    context, study = begin({"study.rungs": 1, "study.trials": 2})
    dead = trials_module.DeadWorkers()
    place, process, started = this_process().split()
    for _ in range(trials_module.MAX_DEATHS):
        (taken, *_) = [trial for trial in study.get_trials(deepcopy=False) if trial.number == 1]
        assert trials_module.take(study._storage, [taken])
        study._storage.set_trial_user_attr(taken._trial_id, WORKER, f"{place} {process} {int(started) - 1}")
        assert dead.put_back(study, study._storage) == [1]
    work(context, study)
    rows = [row(trial) for trial in study.get_trials(deepcopy=False)]
    assert [item.state for item in rows] == ["complete", "failed", "complete"]
    assert "3 workers died" in rows[1].error


@without_mlflow
def test_a_trial_that_another_worker_has_just_taken_stays_with_it(begin, monkeypatch):
    """Two workers find the same dead one; the second one looks again before it puts the trial back."""
    _, study = begin()
    storage, dead = study._storage, trials_module.DeadWorkers()
    taken = trials_module.take(storage, study.get_trials(deepcopy=False))
    place, process, started = this_process().split()
    storage.set_trial_user_attr(taken._trial_id, WORKER, f"{place} {process} {int(started) - 1}")
    stale = [storage.get_trial(taken._trial_id)]
    assert dead.put_back(study, storage) == [0]
    assert storage.get_trial(taken._trial_id).user_attrs[WORKER] == ""
    assert trials_module.take(storage, [taken])
    monkeypatch.setattr(study, "get_trials", lambda **_: stale)
    assert dead.put_back(study, storage) == []
    assert trials_module.is_own(storage, taken)


@without_mlflow
def test_two_workers_never_take_the_same_trial(begin):
    _, study = begin()
    candidates = study.get_trials(deepcopy=False)
    taken = [trials_module.take(study._storage, candidates) for _ in range(7)]
    assert sorted(trial.number for trial in taken[:6]) == list(range(6))
    assert taken[6] is None


@without_mlflow
def test_several_objectives_are_measured_and_the_front_is_found(begin, fake, monkeypatch):
    from components.studies.objectives import Measured
    from components.studies.table import best_trials

    monkeypatch.setattr(Measured, "character_error", lambda self: 1 / len(fake.calls))
    context, study = begin({"study.objectives": ["mel", "training_seconds", "character_error"], "study.trials": 4})
    work(context, study)
    complete = [trial for trial in study.get_trials() if trial.state == TrialState.COMPLETE]
    assert all(len(trial.values) == 3 for trial in complete)
    assert {trial.number for trial in best_trials(study)} <= {trial.number for trial in complete}
    assert len({trial.values[2] for trial in complete}) == len(complete)
