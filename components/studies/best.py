"""The best trial of a study, and its settings as a file and as the settings of a training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml
from optuna.trial import FrozenTrial

from components.studies.attributes import USED
from components.studies.identity import ELSEWHERE
from components.studies.space import BUDGET, batch_frames, with_values
from components.studies.storage import StudyError
from components.studies.study import arguments_of
from components.studies.table import best_trials, complete_trials
from model.config.resolution import flatten, nest, resolve
from model.config.study import StudySettings
from model.config.training import TrainSettings

if TYPE_CHECKING:
    from optuna import Study

START_FROM = "training.start_from"


def best_trial(study: "Study") -> FrozenTrial:
    """Returns the feasible trial with the lowest first objective.

    Raises:
        StudyError: no trial is complete, or none of the complete ones is feasible.
    """
    if found := best_trials(study):
        return found[0]
    complete = complete_trials(study)
    if not complete:
        raise StudyError(f"the study {study.study_name} has no complete trial yet; continue it with `study run`")
    raise StudyError(
        f"none of the {len(complete)} complete trials of the study {study.study_name} aligns text and audio "
        "(study.min_alignment_sharpness); start one with more steps (study.max_steps) or from a base voice"
    )


def best_settings(study: "Study") -> dict[str, Any]:
    """Returns the settings of the best trial that are not presets of its model size, by dotted key.

    These are the searched ones, and those that all trials had in common by the user's choice. Steps and schedule of
    validations are not among them: the budget of trials determined them.
    """
    settings, used = arguments_of(study).settings, best_trial(study).user_attrs[USED]
    return {**common_settings(settings), **batch_frames(settings, used), **used}


def common_settings(settings: StudySettings) -> dict[str, Any]:
    """Returns the settings of all trials that differ from the presets of their model size, and `training.start_from`.

    The latter is always included, since `auto` in `params.yaml` may resolve to another voice than that of the trials.
    """
    size = {"model_size": settings.model_size, "optimization_level": settings.optimization_level}
    default = StudySettings.of(resolve(overrides=size).config)
    values, usual = (_of_training(item) for item in (settings, default))
    left_out = {*BUDGET, *ELSEWHERE}
    chosen = {key: value for key, value in values.items() if value != usual[key] and key not in left_out}
    return {**size, **chosen, START_FROM: values[START_FROM]}


def _of_training(settings: StudySettings) -> Mapping[str, Any]:
    return flatten(settings.model_dump(mode="json", include=set(TrainSettings.model_fields)))


def best_file(study: "Study") -> str:
    """Returns the best settings as the text of a file for `--config`."""
    trial = best_trial(study)
    objectives = arguments_of(study).settings.study.objectives
    values = ", ".join(f"{name} {value:.4f}" for name, value in zip(objectives, trial.values, strict=True))
    head = f"# Study {study.study_name}, trial {trial.number}: {values}\n"
    return head + yaml.safe_dump(nest(best_settings(study)), allow_unicode=True)


def best_train_settings(study: "Study") -> TrainSettings:
    """Returns the settings of a whole training with the settings of the best trial."""
    return with_values(arguments_of(study).settings, best_trial(study).user_attrs[USED])
