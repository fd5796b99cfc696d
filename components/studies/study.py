"""Studies in their storage: the one place where a study and its trials are created, and where they are found."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import lineage
from components.base_voice import base_folder
from components.state import State
from components.studies.attributes import ARGUMENTS, BASELINE, IDENTITY, PARENT_RUN
from components.studies.identity import StudyArguments, identity
from components.studies.space import Range, baseline, search_space
from components.studies.storage import StudyError, storage
from components.studies.trials import counted
from components.tracking import client, experiment_id
from model.config.data import PreprocessSettings
from model.config.study import StudySettings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage


@dataclass(frozen=True, kw_only=True)
class StudyContext:
    """Data and settings that all trials of a study share.

    Attributes:
        state: State folder, which receives the files of the trials.
        settings: Settings that the values of a trial override.
        space: Searched settings.
        features: Feature store to train on.
        corpus: Corpus that the features were made of.
        base: Folder of the voice that all trials start from; `None` for training from scratch.
        experiment: MLflow experiment.
        name: Name of the study.
    """

    state: State
    settings: StudySettings
    space: Mapping[str, Range]
    features: Path
    corpus: Path
    base: Path | None
    experiment: str
    name: str

    @classmethod
    def of(cls, state: State, study: "Study", features: Path, corpus: Path) -> "StudyContext":
        """Returns the context of a study whose data lies in these folders.

        Raises:
            BaseVoiceError, RegistryError: the voice that trials start from is missing, or another one.
        """
        arguments = arguments_of(study)
        return cls(
            state=state,
            settings=arguments.settings,
            space=search_space(arguments.settings),
            features=features,
            corpus=corpus,
            base=base_folder(arguments.settings.training, state),
            experiment=arguments.experiment,
            name=arguments.study,
        )

    @property
    def folder(self) -> Path:
        return self.state.folder("studies", self.name)


def create_study(state: State, arguments: StudyArguments) -> "Study":
    """Creates a study with its trials and its MLflow run, or adds the trials that an existing one lacks.

    One process does this before the workers start, so that they only take trials that exist: a study has exactly the
    requested trials, independent of the number of workers.

    Raises:
        StudyError: there is a study of this name with another identity; the message names the differences.
    """
    import optuna

    settings = arguments.settings
    preprocess = PreprocessSettings.from_json(arguments.preprocess_settings)
    own = identity(settings, preprocess, arguments.data_hash)
    with state.lock(f"study-{arguments.study}"):
        study = optuna.create_study(
            study_name=arguments.study,
            storage=storage(state),
            directions=["minimize"] * len(settings.study.objectives),
            load_if_exists=True,
        )
        if known := study.user_attrs.get(IDENTITY):
            _require_same(arguments.study, known, json.loads(json.dumps(own)))
        else:
            study.set_user_attr(IDENTITY, own)
            study.set_metric_names(list(settings.study.objectives))
        study.set_user_attr(ARGUMENTS, arguments.plain())
        _open_parent_run(study, state, arguments.experiment)
        if not study.get_trials(deepcopy=False):
            first = baseline(settings, search_space(settings))
            study.enqueue_trial(first, user_attrs={BASELINE: True})
        for _ in range(settings.study.trials - len(counted(study.get_trials(deepcopy=False)))):
            study.enqueue_trial({})
    return study


def _require_same(name: str, known: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuses to continue a study under other settings."""
    from model.loop.checkpoints import describe_differences

    if known != own:
        raise StudyError(
            f"the study {name} was made under other conditions: {describe_differences(known, own)}; change them back, "
            "or give the study another name (`myxtts study run <name>`)"
        )


def _open_parent_run(study: "Study", state: State, experiment: str) -> None:
    """Starts the MLflow run of a study, or reopens it."""
    from mlflow.exceptions import MlflowException

    tracking = client(state)
    try:
        if run := study.user_attrs.get(PARENT_RUN):
            tracking.update_run(run, status="RUNNING")
            return
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    tags = {**lineage.current(), "optuna.study": study.study_name}
    where = experiment_id(tracking, state, experiment)
    parent = tracking.create_run(where, tags=tags, run_name=f"study {study.study_name}")
    study.set_user_attr(PARENT_RUN, parent.info.run_id)


def load_study(state: State, name: str = "") -> "Study":
    """Loads a study by its name, or the newest one.

    Raises:
        StudyError: there is none, or none of this name; the message lists those that there are.
    """
    import optuna

    opened = storage(state)
    found = _names(opened)
    if not found:
        raise StudyError("there is no study yet; `myxtts study run` makes one")
    if name and name not in found:
        raise StudyError(f"there is no study {name}; there are: {', '.join(found)}")
    return optuna.load_study(study_name=name or found[0], storage=opened)


def load_studies(state: State) -> "list[Study]":
    """Loads all studies, the newest first."""
    import optuna

    opened = storage(state)
    return [optuna.load_study(study_name=name, storage=opened) for name in _names(opened)]


def _names(opened: "BaseStorage") -> list[str]:
    import optuna

    summaries = optuna.get_all_study_summaries(opened)
    order = sorted(summaries, key=lambda item: item.datetime_start or datetime.max, reverse=True)
    return [item.study_name for item in order]


def arguments_of(study: "Study") -> StudyArguments:
    """Returns the arguments with which a study was made.

    Raises:
        StudyError: an older version of this program made the study.
    """
    try:
        arguments = StudyArguments(**study.user_attrs[ARGUMENTS])
        _ = arguments.settings  # refuses settings of another version
        return arguments
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"the study {study.study_name} was made by another version of this program; start a new one"
        ) from error
