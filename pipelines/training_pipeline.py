"""The training pipeline: one definition for this machine and for a cluster."""

import json
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
from model.config.resolution import subset
from model.config.schema import Config
from pipelines.profiles import Profile, pipeline_config, place

NAME = "myxtts-training"


STEP_SECTIONS = {
    "preprocess": ("audio", "features"),
    "train": ("model_size", "optimization_level", "seed", "audio", "model", "loss", "training"),
    "finetune_vocoder": ("seed", "audio", "vocoder"),
    "evaluate": ("seed", "audio", "evaluation"),
    "gate": ("registry",),
}
"""The settings that each step is told: a change of any other setting leaves its cached result valid."""


def arguments(config: Config, data_hash: str, remote: str, name: str) -> dict[str, str]:
    """Arguments of a run: hashes, names and settings as JSON strings (KFP would turn whole numbers in dicts to floats).

    Args:
        config: Resolved settings.
        data_hash: DVC hash of the corpus.
        remote: DVC remote that holds it.
        name: Registered model.
    """
    told = {
        f"{step}_settings": json.dumps(_told(config, step), sort_keys=True, ensure_ascii=False)
        for step in STEP_SECTIONS
    }
    return {"data_hash": data_hash, "remote": remote, "experiment": config.corpus.name, "name": name, **told}


def _told(config: Config, step: str) -> dict[str, Any]:
    settings = subset(config, *STEP_SECTIONS[step])
    if step == "preprocess":  # as with the vocoder's checkpoint below: the weights' content counts, not their path
        features = settings["features"]
        features["speaker_encoder_sha256"] = features["speaker_encoder_sha256"] or local_sha256(
            features["speaker_encoder_weights"]
        )
    if step == "finetune_vocoder":  # a checkpoint that changed under its path is another one
        vocoder = settings["vocoder"]
        vocoder["checkpoint_sha256"] = vocoder["checkpoint_sha256"] or local_sha256(vocoder["checkpoint"])
    if step == "gate":
        settings["registry"].pop("name")  # the resolved name is an argument of its own
    return settings


def training_pipeline(profile: Profile) -> Any:
    """The pipeline, bound to a target."""

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
        trained = train(features=prepared.outputs["features"], settings=train_settings, experiment=experiment)
        finetuned = finetune_vocoder(
            training=trained.outputs["training"], settings=finetune_vocoder_settings, experiment=experiment
        )
        evaluated = evaluate(finetuning=finetuned.outputs["finetuning"], settings=evaluate_settings)
        registered = register(evaluation=evaluated.outputs["evaluation"], name=name)
        decided = gate(registration=registered.outputs["registration"], settings=gate_settings)
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
