"""Identity of a study: its arguments, all that its trials depend on, and its name."""

from dataclasses import dataclass, replace
from typing import Any

from components.studies.space import BUDGET, batch_frames, search_space
from model.config import settings_hash
from model.config.data import PreprocessSettings
from model.config.resolution import flatten
from model.config.study import StudySettings

ELSEWHERE = (
    *("study.name", "study.trials", "study.workers"),
    *("training.buffer_size", "training.num_workers", "training.num_threads", "training.log_interval"),
    *("training.device", "training.model_gpu", "training.data_gpu", "training.enable_memory_isolation"),
    *("training.checkpoint_interval", "training.start_from"),  # the hash of the weights counts instead
)
"""Settings that change no trial."""


@dataclass(frozen=True, kw_only=True)
class StudyArguments:
    """Arguments of a study's pipeline: names, hashes, and settings as JSON.

    Attributes:
        study: Name of the study.
        data_hash: DVC hash of the corpus.
        evaluation_data: DVC hash of the corpus that a following training is evaluated on.
        remote: DVC remote that holds both.
        experiment: MLflow experiment.
        name: Registered model of a training that follows the study.
        preprocess_settings, study_settings: Settings of the study's steps.
        finetune_vocoder_settings, evaluate_settings, gate_settings: Settings of the steps of such a training.
    """

    study: str
    data_hash: str
    evaluation_data: str
    remote: str
    experiment: str
    name: str
    preprocess_settings: str
    study_settings: str
    finetune_vocoder_settings: str
    evaluate_settings: str
    gate_settings: str

    @property
    def settings(self) -> StudySettings:
        return StudySettings.from_json(self.study_settings)

    def with_amounts(self, trials: int | None, workers: int | None) -> "StudyArguments":
        """Returns the arguments with other numbers of trials and workers, where they are given."""
        given = {key: value for key, value in (("trials", trials), ("workers", workers)) if value}
        study = self.settings.study.model_copy(update=given)
        return replace(self, study_settings=self.settings.model_copy(update={"study": study}).to_json())

    def plain(self) -> dict[str, str]:
        """Returns the arguments by name."""
        return dict(vars(self))


def identity(settings: StudySettings, preprocess: PreprocessSettings, data_hash: str) -> dict[str, Any]:
    """Returns all that the trials of a study depend on, by dotted key: settings outside the space, space and data."""
    space = search_space(settings)
    left_out = {*space, *ELSEWHERE, *BUDGET} - {"training.warmup_steps"}
    values = {**flatten(preprocess.model_dump(mode="json")), **flatten(settings.model_dump(mode="json"))}
    kept = {key: value for key, value in values.items() if key not in left_out}
    if sizes := space.get("training.batch_size"):  # the bound on frames follows from the batch size of a trial
        kept |= batch_frames(settings, {"training.batch_size": sizes.high})
    return {**kept, "study.space": {key: str(interval) for key, interval in space.items()}, "data": data_hash}


def study_name(settings: StudySettings, preprocess: PreprocessSettings, data_hash: str, corpus: str) -> str:
    """Returns `study.name`, or a name that only studies of the same identity have."""
    digest = settings_hash(identity(settings, preprocess, data_hash))[:8]
    return settings.study.name or f"{settings.model_size}-{corpus}-{digest}"
