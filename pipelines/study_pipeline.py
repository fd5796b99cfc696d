"""The study pipeline: trials in parallel workers, and optionally a training with the best settings."""

from typing import Any

from kfp import dsl

from components.conclude_study.component import conclude_study
from components.configure.parameters import pin_checkpoints, refuse_credentials, step_settings
from components.prepare_study.component import prepare_study
from components.resolve_data.component import resolve_data
from components.studies.identity import StudyArguments, study_name
from components.study_worker.component import study_worker
from model.config.data import PreprocessSettings
from model.config.schema import Config
from model.config.study import StudySettings
from pipelines.profiles import Profile, pipeline_config, place
from pipelines.training_pipeline import extract_features, train_to_gate

NAME, NAME_WITH_TRAINING = "myxtts-study", "myxtts-study-training"


def study_arguments(config: Config, data_hash: str, remote: str, name: str) -> StudyArguments:
    """Returns the arguments of a study's pipeline: hashes, names, and each step's settings as JSON.

    Args:
        config: Resolved settings.
        data_hash: DVC hash of the corpus.
        remote: DVC remote that holds it.
        name: Registered model of a training that follows the study.

    Raises:
        ConfigError: an argument contains an address with credentials.
        SpaceError: `study.space` names no setting that can be searched.
    """
    steps = step_settings(config)
    del steps["train_settings"]  # those of each trial follow from the study's
    settings = StudySettings.of(pin_checkpoints(config))
    preprocess_settings = PreprocessSettings.from_json(steps["preprocess_settings"])
    found = StudyArguments(
        study=study_name(settings, preprocess_settings, data_hash, config.corpus.name),
        data_hash=data_hash,
        evaluation_data=config.evaluation.corpus or data_hash,
        remote=remote,
        experiment=config.corpus.name,
        name=name,
        study_settings=settings.to_json(),
        **steps,
    )
    refuse_credentials(found.plain())
    return found


def study_pipeline(profile: Profile, workers: int, then_train: bool) -> Any:
    """Returns the pipeline of a target.

    Args:
        profile: Settings of the target.
        workers: Number of workers that train trials in parallel.
        then_train: Whether a training with the best settings follows, through evaluation and gate.
    """

    @dsl.pipeline(
        name=NAME_WITH_TRAINING if then_train else NAME,
        description="Trials of hyperparameters in parallel workers" + (", and a training with the best." * then_train),
        pipeline_config=pipeline_config(profile),
    )
    def pipeline(
        study: str = "",
        data_hash: str = "",
        evaluation_data: str = "",
        remote: str = "",
        experiment: str = "",
        name: str = "",
        preprocess_settings: str = "",
        study_settings: str = "",
        finetune_vocoder_settings: str = "",
        evaluate_settings: str = "",
        gate_settings: str = "",
    ) -> dsl.Artifact:
        """Runs the trials of a study with the arguments of `myxtts study run`; on the page, clone a run to change them.

        Args:
            study: Name of the study.
            data_hash: Hash of the data (<md5>.dir).
            evaluation_data: Hash of the corpus that a training that follows is evaluated on; '' for the same.
            remote: DVC remote that holds the data.
            experiment: MLflow experiment.
            name: Registered model of a training that follows the study.
            preprocess_settings: Settings of the features, as JSON.
            study_settings: Settings of the study and of what its trials have in common, as JSON.
            finetune_vocoder_settings: Settings of the vocoder of a training that follows, as JSON.
            evaluate_settings: Settings of its evaluation, as JSON.
            gate_settings: Settings of its gate, as JSON.
        """
        resolved = resolve_data(data_hash=data_hash, evaluation_data=evaluation_data, remote=remote)
        data = resolved.outputs["data"]
        features = extract_features(profile, data, preprocess_settings)
        created = prepare_study(
            data=data,
            features=features,
            study=study,
            data_hash=data_hash,
            evaluation_data=evaluation_data,
            remote=remote,
            experiment=experiment,
            name=name,
            preprocess_settings=preprocess_settings,
            study_settings=study_settings,
            finetune_vocoder_settings=finetune_vocoder_settings,
            evaluate_settings=evaluate_settings,
            gate_settings=gate_settings,
        )
        prepared = created.outputs["prepared"]
        with dsl.ParallelFor([f"{number + 1}/{workers}" for number in range(workers)], parallelism=workers) as worker:
            worked = study_worker(data=data, features=features, prepared=prepared, worker=worker)
            place(worked, "study_worker", profile)
        concluded = conclude_study(prepared=prepared, workers=dsl.Collected(worked.outputs["finished"]))
        tasks = {"resolve_data": resolved, "prepare_study": created, "conclude_study": concluded}
        for step, task in tasks.items():
            place(task, step, profile)
        if not then_train:
            return concluded.outputs["conclusion"]
        return train_to_gate(
            profile,
            data=data,
            features=features,
            experiment=experiment,
            name=name,
            train_settings=concluded.outputs["train_settings"],
            finetune_vocoder_settings=finetune_vocoder_settings,
            evaluate_settings=evaluate_settings,
            gate_settings=gate_settings,
            origin=concluded.outputs["origin"],
        )

    return pipeline
