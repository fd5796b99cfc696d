"""Creates a study with its trials and its MLflow run, or adds the trials that it lacks."""

from components.base_voice import base_folder
from components.contracts import PrepareStudyOutput, PreprocessOutput, ResolveDataOutput
from components.feature_remote import open_store
from components.state import State
from components.studies.identity import StudyArguments
from components.studies.study import create_study
from components.studies.trials import counted
from model.config.training import TrainSettings
from model.diagnosis.checklist import check_normalization, checklist, refuse


def run(data: str, features: str, **arguments: str) -> PrepareStudyOutput:
    """Creates the study, or continues it.

    Args:
        data: Path of the `ResolveDataOutput`.
        features: Path of the `PreprocessOutput`.
        **arguments: Fields of `StudyArguments`.

    Raises:
        StudyError: there is a study of this name with other settings or data.
        ChecklistError: the settings or the data forbid training.
        BaseVoiceError: the voice that trials start from is missing, or another one.
    """
    ResolveDataOutput.read(data)
    store = PreprocessOutput.read(features)
    wanted = StudyArguments(**arguments)
    settings = wanted.settings
    state = State.locate()
    statistics = open_store(store.features, state).statistics
    refuse([*checklist(TrainSettings.of(settings)), check_normalization(statistics)])
    base_folder(settings.training, state)
    study = create_study(state, wanted)
    trials = counted(study.get_trials(deepcopy=False))
    waiting = sum(not trial.state.is_finished() for trial in trials)
    return PrepareStudyOutput(summary=f"{wanted.study}: {waiting} of {len(trials)} trials to run", study=wanted.study)
