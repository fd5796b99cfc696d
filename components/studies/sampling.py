"""Values of a new trial, suggested by one of Optuna's samplers from the trials that have passed the first rung.

The sampler works on a copy of the study in memory. Optuna's own would learn from finished trials alone, but under
successive halving all trials start before the first one has finished.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from components.studies.space import Range
from components.studies.trials import rung_values
from model.config.study import StudySettings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

RANDOM_TRIALS = 4
"""Number of trials with random values before a sampler learns from them."""


def suggest(study: "Study", number: int, settings: StudySettings, space: Mapping[str, Range]) -> dict[str, Any]:
    """Returns values for the trial with this number.

    Each trial has its own random number generator. Random values therefore do not depend on the order in which workers
    start trials, and no two trials have the same ones.
    """
    import optuna

    seed, kind = settings.seed * 10_000 + number, settings.study.sampler
    copy = optuna.create_study(directions=study.directions, sampler=sampler(kind, seed))
    distributions = {key: interval.distribution() for key, interval in space.items()}
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != number]
    others = [trial for trial in trials if trial.params.keys() == distributions.keys()]
    observed = [item for trial in others for item in _observed(trial, len(study.directions))]
    copy.add_trials(_with_equal_constraints(observed))
    values = dict(copy.ask(distributions).params)
    if kind != "random" and any(values == trial.params for trial in others):
        copy.sampler = sampler("random", seed + 5_000)  # a training is deterministic: the same again shows nothing
        values = dict(copy.ask(distributions).params)
    return values


def _with_equal_constraints(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the trials with the same constraints each, as samplers require: those that are unknown are satisfied.

    Constraints are known only of trials that were trained to their end.
    """
    unknown = {key: 0.0 for trial in trials for key in trial.system_attrs}
    for trial in trials:
        if trial.values:
            trial.system_attrs = {**unknown, **trial.system_attrs}
    return trials


def comparable(study: "Study") -> "Study":
    """Returns a study in memory with the values of all trials that have passed the first rung, at its end.

    Under successive halving, final values exist of few trials, and those of other rungs are not comparable. Trials
    keep their numbers; those without a value have failed in it.
    """
    import optuna

    copy = optuna.create_study(directions=study.directions)
    for trial in study.get_trials(deepcopy=False):
        found = next((item for item in _observed(trial, len(study.directions)) if item.values), None)
        if found:  # without constraints, which are known of finished trials only
            copy.add_trial(create_trial(values=found.values, params=found.params, distributions=found.distributions))
        else:
            copy.add_trial(create_trial(state=TrialState.FAIL))
    return copy


def sampler(kind: str, seed: int) -> "BaseSampler":
    """Returns the sampler of a study's setting `sampler`."""
    from optuna import samplers

    if kind == "random":
        return samplers.RandomSampler(seed=seed)
    if kind == "tpe":
        return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=RANDOM_TRIALS)
    return samplers.GPSampler(seed=seed, n_startup_trials=RANDOM_TRIALS)


def _observed(trial: FrozenTrial, objectives: int) -> list[FrozenTrial]:
    """Returns a trial as the sampler's observation: its error at the first rung, or its values without rungs.

    A trial that is being trained counts too, so that the next one gets other values.
    """
    values = trial.values
    if objectives == 1 and (passed := rung_values(trial)):
        values = passed[:1]
    shared: dict[str, Any] = {"params": trial.params, "distributions": trial.distributions}
    if values and all(map(math.isfinite, values)):
        constraints = {key: value for key, value in trial.system_attrs.items() if key.startswith("constraints")}
        return [create_trial(values=values, system_attrs=constraints, **shared)]
    if trial.state in (TrialState.RUNNING, TrialState.WAITING):
        return [create_trial(state=TrialState.RUNNING, **shared)]
    return []
