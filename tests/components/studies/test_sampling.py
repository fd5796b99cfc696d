"""Values of new trials: they depend on results of other trials, but not on the order of the workers."""

import pytest
from optuna.trial import create_trial

from components.studies.sampling import suggest
from components.studies.trials import rung_values
from components.studies.worker import work

pytestmark = pytest.mark.usefixtures("without_mlflow")
KINDS = ("gp", "tpe", "random")


@pytest.mark.parametrize("kind", KINDS)
def test_every_trial_gets_values_of_its_own_and_the_same_ones_again(begin, kind):
    context, study = begin({"study.sampler": kind})
    values = [suggest(study, number, context.settings, context.space) for number in range(4)]
    assert len({item["loss.mel_loss_weight"] for item in values}) == 4
    assert values[2] == suggest(study, 2, context.settings, context.space)
    for item in values:
        assert all(context.space[key].contains(value) for key, value in item.items())


@pytest.mark.parametrize("kind", ["gp", "tpe"])
def test_samplers_learn_from_the_first_rung(begin, fake, kind):
    """The error of the stand-in is lowest where the mel weight is 3, in a range from 2.5 to 5."""
    context, study = begin({"study.sampler": kind, "study.trials": 14, "study.max_steps": 45})
    work(context, study)
    weights = [trial.params["loss.mel_loss_weight"] for trial in study.get_trials()]
    assert all(rung_values(trial) for trial in study.get_trials())
    late = [abs(weight - 3) for weight in weights[8:]]
    assert sum(late) / len(late) < 0.6  # 0.9 at random


@pytest.mark.parametrize("kind", ["gp", "tpe"])
def test_values_that_a_trial_has_had_are_not_suggested_again(begin, kind):
    """The Gaussian process returns to the corner that it thinks best, where the same training would run again."""
    context, study = begin({"study.sampler": kind})
    values = suggest(study, 5, context.settings, context.space)
    distributions = {key: interval.distribution() for key, interval in context.space.items()}
    study.add_trial(create_trial(value=1.0, params=values, distributions=distributions))
    assert suggest(study, 5, context.settings, context.space) != values


@pytest.mark.parametrize("kind", ["gp", "tpe"])
@pytest.mark.parametrize("sharpness", [0.9, 0.1])
def test_a_study_of_pruned_and_complete_trials_is_continued(begin, fake, kind, sharpness):
    """Only complete trials have constraints, while samplers require them of all trials or of none."""
    fake.sharpness = sharpness
    changes = {"study.sampler": kind, "study.max_steps": 45}
    work(*begin({**changes, "study.trials": 7}))
    context, study = begin({**changes, "study.trials": 9})
    work(context, study)
    trials = study.get_trials()
    assert {bool(trial.constraints) for trial in trials[:7]} == {True, False}
    assert all(trial.state.is_finished() and rung_values(trial) for trial in trials)
    assert len({tuple(trial.params.values()) for trial in trials}) == 9


def test_random_values_do_not_depend_on_other_trials(begin, fake):
    context, study = begin()
    before = suggest(study, 5, context.settings, context.space)
    work(context, study)
    assert study.get_trials()[5].params == before
