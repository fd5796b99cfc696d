import json
import shutil
from dataclasses import dataclass, replace

import optuna
import pytest
import yaml

from components import tracking
from components.state import State
from model.config.resolution import batch_range, flatten, nest, presets, resolve
from model.training import trainer
from pipelines import study as module
from pipelines.project import Project
from pipelines.search_space import search_space
from pipelines.study import (
    FINISHED,
    RUNGS,
    StudyContext,
    StudyError,
    best_trial,
    load_study,
    open_study,
    study_name,
    trial_config,
    work,
)

SIZES = sorted(presets()[0])
FEW_STARTERS = {"model_size": "xtiny", "study.pruner_startup_trials": 2}


@pytest.mark.parametrize("size", SIZES)
def test_the_space_is_the_safe_range_of_the_size(size):
    space = search_space(size)
    assert "loss.kl_loss_weight" not in space
    assert vars(search_space(size, variational=True)["loss.kl_loss_weight"])["low"] == 0.5
    low, high = batch_range(size)
    assert (space["training.batch_size"].low, space["training.batch_size"].high) == (low, high)
    assert (space["loss.mel_loss_weight"].low, space["loss.mel_loss_weight"].high) == (2.5, 5.0)
    defaults = flatten(resolve(overrides={"model_size": size}).config.model_dump())
    assert all(interval.contains(defaults[key]) for key, interval in space.items())


@pytest.mark.parametrize("size", SIZES)
def test_trials_of_every_batch_see_equally_many_samples(size):
    resolved = resolve(overrides={"model_size": size})
    low, high = batch_range(size)
    seen = []
    for batch in (low, high):
        settings = trial_config(resolved, {"training.batch_size": batch}).training
        seen.append(settings.max_steps * settings.batch_size)
        assert settings.max_steps / settings.evaluation_interval <= RUNGS
    assert seen[0] == pytest.approx(seen[1], rel=0.02)


@pytest.mark.parametrize(
    ("warm_up", "study_steps", "expected"), [(70, 400, 70), (70, 280, 70), (70, 120, 30), (0, 120, 0)]
)
def test_warm_up_takes_at_most_a_quarter_of_a_trial(warm_up, study_steps, expected):
    """The learning rate of a short trial would never reach the value that is searched."""
    largest = batch_range("tiny")[1]
    resolved = resolve(
        overrides={"model_size": "tiny", "training.warmup_steps": warm_up, "study.max_steps": study_steps}
    )
    settings = trial_config(resolved, {"training.batch_size": largest}).training
    assert settings.max_steps == study_steps
    assert settings.warmup_steps == expected


@dataclass
class FakeTrainer:
    """Stands for training: an error that falls towards a floor, lower where the mel weight is near 3."""

    calls: list

    def __call__(self, config, features, output, logger, on_validation):
        self.calls.append(config)
        floor = 1 + abs(config.loss.mel_loss_weight - 3)
        last, interval = config.training.max_steps, config.training.evaluation_interval
        for step in sorted({*range(interval, last, interval), last}):
            metrics = {"validation/mel": floor + 1 / step}
            logger.metrics(step, metrics)
            on_validation(step, metrics)
        voice = output / "voice"
        voice.mkdir(parents=True)
        (voice / "voice.json").write_text(json.dumps({"trained_with": config.model_dump(mode="json")}))
        steps = config.training.max_steps
        return trainer.TrainingResult(steps=steps, exported_step=steps, voice=voice, metrics=metrics)


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> State:
    """A state with its databases, which take a second to make."""
    state = State(tmp_path_factory.mktemp("empty")).prepare()
    tracking.initialize(state, f"sqlite:///{state.tracking_database}")
    return state


@pytest.fixture
def context(tmp_path, empty, monkeypatch) -> StudyContext:
    for name in ("MLFLOW_TRACKING_URI", "KUBERNETES_SERVICE_HOST", module.STORAGE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    state = State(shutil.copytree(empty.root, tmp_path / "state"))
    resolved = resolve(overrides=FEW_STARTERS)
    name = study_name(resolved.config, "0" * 32 + ".dir")
    return StudyContext(state=state, resolved=resolved, features=tmp_path, experiment="toy", name=name)


@pytest.fixture
def fake(monkeypatch) -> FakeTrainer:
    found = FakeTrainer([])
    monkeypatch.setattr(trainer, "train", found)
    return found


def test_a_study_from_baseline_to_best(context, fake, tmp_path):
    study = open_study(context)
    work(context, study, 6)
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    assert len(trials) == 6

    # What was suggested is what the trainer was given, and what is stored is what it used.
    for trial, config in zip(trials, fake.calls, strict=True):
        used = flatten(config.model_dump())
        assert {key: used[key] for key in trial.params} == trial.params == trial.user_attrs["used"]
    assert len({config.loss.mel_loss_weight for config in fake.calls}) > 3

    # The settings as they stood came first.
    defaults = flatten(context.config.model_dump())
    assert trials[0].params == {key: defaults[key] for key in search_space("xtiny")}

    # Every trial is a child of the study's MLflow run.
    client = tracking.client(context.state)
    for trial in trials:
        run = client.get_run(trial.user_attrs["mlflow_run"])
        assert run.data.tags["mlflow.parentRunId"] == study.user_attrs["mlflow_run"]
        assert run.data.params["loss.mel_loss_weight"] == str(trial.params["loss.mel_loss_weight"])
        assert "validation/mel" in run.data.metrics

    # The best can be used as a --config file.
    best = tmp_path / "best.yaml"
    best.write_text(yaml.safe_dump(nest(best_trial(study).user_attrs["used"])))
    reread = flatten(resolve(config_file=best).config.model_dump())
    assert {key: reread[key] for key in study.best_trial.params} == study.best_trial.params

    # Enough is enough, and more is more.
    work(context, open_study(context), 6)
    assert len(fake.calls) == 6
    work(context, open_study(context), 7)
    assert len(fake.calls) == 7


def test_hopeless_trials_are_pruned(context, fake):
    study = open_study(context)
    for weight in (3.0, 3.1, 3.05, 5.0):
        study.enqueue_trial({"loss.mel_loss_weight": weight, "training.batch_size": 16, "training.learning_rate": 2e-3})
    work(context, study, 5)
    by_weight = {trial.params["loss.mel_loss_weight"]: trial for trial in study.trials}
    assert by_weight[5.0].state == optuna.trial.TrialState.PRUNED
    assert by_weight[3.0].state == optuna.trial.TrialState.COMPLETE


@pytest.mark.parametrize(("warm_up", "pruned"), [(1, True), (3, False)])
def test_the_pruner_waits_for_so_many_evaluations(context, warm_up, pruned):
    settings = resolve(overrides={**FEW_STARTERS, "study.pruner_warmup_evaluations": warm_up})
    study = open_study(replace(context, resolved=settings))
    for _ in range(3):
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values={1: 1.0, 2: 1.0}))
    hopeless = study.ask()
    hopeless.report(9.0, 2)
    assert hopeless.should_prune() == pruned


def test_a_trial_whose_training_fails_is_failed_and_the_study_goes_on(context, fake, monkeypatch):
    def breaking(*arguments):
        if len(fake.calls) == 1:
            fake.calls.append(None)
            raise trainer.TrainingError("not finite")
        return fake(*arguments)

    monkeypatch.setattr(trainer, "train", breaking)
    study = open_study(context)
    work(context, study, 2)
    assert [trial.state.name for trial in study.trials].count("FAIL") == 1


def test_trials_of_dead_workers_are_tried_again(context, fake):
    study = open_study(context)
    trial = study.ask()
    trial.suggest_float("loss.mel_loss_weight", 2.5, 5.0)
    trial.set_user_attr("worker", f"{module.socket.gethostname()}:999999999")
    study = open_study(context)
    assert study.trials[trial.number].state == optuna.trial.TrialState.FAIL
    waiting = study.get_trials(states=(optuna.trial.TrialState.WAITING,))
    assert waiting[-1].user_attrs["retry_of"] == trial.number


def test_a_journal_torn_by_a_kill_still_opens(context):
    open_study(context)
    with context.state.study_journal.open("a") as file:
        file.write('{"op_code": 4, "tri')
    open_study(context).ask()
    assert len(open_study(context).trials) == 1


def test_no_best_without_a_trial(context):
    with pytest.raises(StudyError, match="no complete trial"):
        best_trial(open_study(context))


def test_a_pod_without_a_database_is_refused(context, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(StudyError, match=module.STORAGE_VARIABLE):
        module.storage(context.state)


def test_studies_of_other_data_or_size_are_others():
    sizes = [{"model_size": "tiny"}, {"model_size": "small"}, {"model.use_variational_encoder": True}]
    names = {study_name(resolve(overrides=size).config, digest * 32) for size in sizes for digest in "01"}
    assert len(names) == 6


def test_a_study_whose_every_trial_fails_ends_with_the_reason(context, fake, monkeypatch):
    def breaking(*_):
        raise trainer.TrainingError("not finite")

    monkeypatch.setattr(trainer, "train", breaking)
    study = open_study(context)
    with pytest.raises(StudyError, match="3 trials in a row failed, the last one with: not finite"):
        work(context, study, 100)


def test_what_study_run_made_study_show_finds(context, fake, monkeypatch):
    """Also where the settings search another space, which has a study of its own."""
    resolved = resolve(overrides={**FEW_STARTERS, "model.use_variational_encoder": True})
    pipeline_arguments = {"data": "0" * 32 + ".dir"}
    project = Project(context.state.root, context.state, resolved)
    monkeypatch.setattr(Project, "run_arguments", lambda _: pipeline_arguments)
    with pytest.raises(StudyError, match="there is no study"):
        load_study(project)
    name = study_name(resolved.config, pipeline_arguments["data"])
    made = open_study(replace(context, resolved=resolved, name=name))
    assert load_study(project).study_name == made.study_name


@pytest.mark.parametrize("url", ["garbage", "postgresql+pg8000://u:p@127.0.0.1:9/db", "nosuch+driver://h/db"])
def test_a_database_that_cannot_be_used_is_named(context, monkeypatch, url):
    monkeypatch.setenv(module.STORAGE_VARIABLE, url)
    with pytest.raises(StudyError, match=module.STORAGE_VARIABLE):
        module.storage(context.state)


def test_a_study_that_is_gone_on_with_suggests_what_was_not_tried(context, fake):
    for trials in (2, 3, 4):  # as three workers, or one that was stopped twice, would; all random at the start
        work(context, open_study(context), trials)
    assert len({config.loss.mel_loss_weight for config in fake.calls}) == 4


def test_an_interrupted_trial_is_tried_again(context, fake, monkeypatch, capfd):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", interrupted)
    study = open_study(context)
    with pytest.raises(KeyboardInterrupt):
        work(context, study, 1)
    monkeypatch.setattr(trainer, "train", fake)
    work(context, open_study(context), 1)
    first, again = study.trials
    assert (first.state.name, again.state.name) == ("FAIL", "COMPLETE")
    assert again.params == first.params
    assert "Traceback" not in capfd.readouterr().err


def test_every_validation_of_a_trial_is_a_rung_of_its_own(context, fake, recwarn):
    """Also the last, where the steps are no multiple of the interval: 9 steps are validated at 2, 4, 6, 8 and 9."""
    few = replace(context, resolved=resolve(overrides={**FEW_STARTERS, "study.max_steps": 6}))
    study = open_study(few)
    study.enqueue_trial({"loss.mel_loss_weight": 3.0, "training.batch_size": 11, "training.learning_rate": 2e-3})
    work(few, study, 2)
    assert not [warning for warning in recwarn if "already reported" in str(warning.message)]
