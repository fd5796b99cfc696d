"""The training pipeline: one definition for this machine and for a cluster."""

import json
from typing import Any

from kfp import dsl

from components.evaluate.component import evaluate
from components.gate.component import gate
from components.preprocess.component import preprocess
from components.register.component import register
from components.resolve_data.component import resolve_data
from components.train.component import train
from model.config import Config, subset
from pipelines.profiles import STATE_MOUNT, Profile

NAME = "myxtts-training"

STEP_SECTIONS = {
    "preprocess": ("audio", "features"),
    "train": ("model_size", "optimization_level", "seed", "audio", "model", "loss", "training", "vocoder"),
    "evaluate": ("seed", "audio", "vocoder", "evaluation"),
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
    if step == "gate":
        settings["registry"].pop("name")  # the resolved name is an argument of its own
    return settings


def training_pipeline(profile: Profile) -> Any:
    """The pipeline, bound to a target."""

    @dsl.pipeline(name=NAME, description="Recordings by content hash to a gated, registered voice.")
    def pipeline(
        data_hash: str,
        remote: str,
        experiment: str,
        name: str,
        preprocess_settings: str,
        train_settings: str,
        evaluate_settings: str,
        gate_settings: str,
    ) -> dsl.Artifact:
        resolved = resolve_data(data_hash=data_hash, remote=remote)
        prepared = preprocess(data=resolved.outputs["data"], settings=preprocess_settings)
        trained = train(features=prepared.outputs["features"], settings=train_settings, experiment=experiment)
        evaluated = evaluate(training=trained.outputs["training"], settings=evaluate_settings)
        registered = register(evaluation=evaluated.outputs["evaluation"], name=name)
        decided = gate(registration=registered.outputs["registration"], settings=gate_settings)
        tasks = {
            "resolve_data": resolved,
            "preprocess": prepared,
            "train": trained,
            "evaluate": evaluated,
            "register": registered,
            "gate": decided,
        }
        for step, task in tasks.items():
            _place(task, step, profile)
        return decided.outputs["decision"]

    return pipeline


def _place(task: Any, step: str, profile: Profile) -> None:
    """Give a task its image and, on a cluster, its volume, secrets and variables."""
    task.set_container_image(profile.images[step])
    for key, value in profile.environment.items():
        task.set_env_variable(key, value)
    if profile.name != "cluster":
        return
    from kfp import kubernetes

    kubernetes.mount_pvc(task, pvc_name=profile.state_volume, mount_path=STATE_MOUNT)
    # The run's name must not be an input, or no step would ever be served from the cache.
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
    for secret, keys in profile.secrets.items():
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env=dict(keys))
    task.set_retry(num_retries=2, backoff_duration="30s")
