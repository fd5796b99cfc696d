"""The training pipeline: one definition for this machine and for a cluster."""

from typing import Any

from kfp import dsl

from components.evaluate.component import evaluate
from components.fetching import local_sha256
from components.finetune_vocoder.component import finetune_vocoder
from components.gate.component import gate
from components.preprocess.component import preprocess, preprocess_joined
from components.preprocess_part.component import preprocess_part
from components.register.component import register
from components.resolve_data.component import resolve_data
from components.train.component import train
from model.addresses import hide_credentials
from model.config import StepSettings
from model.config.data import PreprocessSettings
from model.config.evaluation import EvaluateSettings, GateSettings
from model.config.resolution import ConfigError
from model.config.schema import Config
from model.config.training import TrainSettings
from model.config.vocoder import FinetuneVocoderSettings
from pipelines.profiles import Profile, pipeline_config, place

NAME = "myxtts-training"

STEP_SETTINGS: dict[str, type[StepSettings]] = {
    "preprocess": PreprocessSettings,
    "train": TrainSettings,
    "finetune_vocoder": FinetuneVocoderSettings,
    "evaluate": EvaluateSettings,
    "gate": GateSettings,
}
"""Step -> type of its settings. A change of any other setting leaves the step's cached result valid."""


def arguments(config: Config, data_hash: str, remote: str, name: str) -> dict[str, str]:
    """Returns the arguments of a run: hashes, names, and each step's settings as JSON.

    Settings are passed as text because KFP would turn whole numbers in dictionaries into floats.

    Args:
        config: Resolved settings.
        data_hash: DVC hash of the corpus.
        remote: DVC remote that holds it.
        name: Registered model.

    Raises:
        ConfigError: an argument contains an address with credentials, which everyone who sees the run could read.
    """
    pinned = pin_checkpoints(config)
    settings = {f"{step}_settings": kind.of(pinned).to_json() for step, kind in STEP_SETTINGS.items()}
    values = {"data_hash": data_hash, "remote": remote, "experiment": config.corpus.name, "name": name, **settings}
    for argument, value in values.items():
        if (shown := hide_credentials(value)) != value:
            raise ConfigError(
                f"the argument `{argument}` of the pipeline contains an address with credentials; remove them and "
                f"use a secret (cluster.s3_secret, cluster.tracking_secret): {shown}"
            )
    return values


def pin_checkpoints(config: Config) -> Config:
    """Returns the settings with the SHA-256 of local checkpoints, so that a changed file makes cached results stale."""
    features, vocoder = config.features, config.vocoder
    encoder = features.speaker_encoder_sha256 or local_sha256(features.speaker_encoder_weights)
    checkpoint = vocoder.checkpoint_sha256 or local_sha256(vocoder.checkpoint)
    return config.model_copy(
        update={
            "features": features.model_copy(update={"speaker_encoder_sha256": encoder}),
            "vocoder": vocoder.model_copy(update={"checkpoint_sha256": checkpoint}),
        }
    )


def training_pipeline(profile: Profile) -> Any:
    """Returns the pipeline of a target."""

    @dsl.pipeline(
        name=NAME,
        description="Recordings by content hash to a gated, registered voice.",
        pipeline_config=pipeline_config(profile),
    )
    def pipeline(
        data_hash: str,
        remote: str,
        experiment: str,
        name: str,
        preprocess_settings: str,
        train_settings: str,
        finetune_vocoder_settings: str,
        evaluate_settings: str,
        gate_settings: str,
    ) -> dsl.Artifact:
        resolved = resolve_data(data_hash=data_hash, remote=remote)
        data = resolved.outputs["data"]
        if profile.preprocess_parts == 1:
            prepared = preprocess(data=data, settings=preprocess_settings)
        else:
            count = profile.preprocess_parts
            with dsl.ParallelFor([f"{number}/{count}" for number in range(count)], parallelism=count) as part:
                extracted = preprocess_part(data=data, settings=preprocess_settings, part=part)
                place(extracted, "preprocess", profile)
            shards = dsl.Collected(extracted.outputs["shards"])
            prepared = preprocess_joined(data=data, settings=preprocess_settings, parts=shards)
        features = prepared.outputs["features"]
        trained = train(data=data, features=features, settings=train_settings, experiment=experiment)
        training = trained.outputs["training"]
        finetuned = finetune_vocoder(
            data=data,
            features=features,
            training=training,
            settings=finetune_vocoder_settings,
            experiment=experiment,
        )
        finetuning = finetuned.outputs["finetuning"]
        evaluated = evaluate(
            data=data, features=features, training=training, finetuning=finetuning, settings=evaluate_settings
        )
        evaluation = evaluated.outputs["evaluation"]
        registered = register(
            data=data, features=features, training=training, finetuning=finetuning, evaluation=evaluation, name=name
        )
        decided = gate(
            data=data,
            features=features,
            training=training,
            evaluation=evaluation,
            registration=registered.outputs["registration"],
            settings=gate_settings,
            evaluate_settings=evaluate_settings,
        )
        tasks = {
            "resolve_data": resolved,
            "preprocess": prepared,
            "train": trained,
            "finetune_vocoder": finetuned,
            "evaluate": evaluated,
            "register": registered,
            "gate": decided,
        }
        for step, task in tasks.items():
            place(task, step, profile)
        return decided.outputs["decision"]

    return pipeline
