"""Make a model version of a trained voice, with its lineage and measures as tags and the alias `candidate`."""

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import lineage
from components.gate.measures import measures
from components.outage import outlast, storage_errors
from components.registry import CANDIDATE, MEASURE, Registry
from components.runner import StepError, read_pointer
from components.state import State, read_json
from components.tracking import Delivery

REQUIREMENTS = (
    "av",
    "espeakng-loader",
    "librosa",
    "mlflow",
    "num2words",
    "numba",
    "numpy",
    "pandas",
    "pydantic",
    "pypinyin",
    "PyYAML",
    "safetensors",
    "scipy",
    "soundfile",
    "soxr",
    "torch",
)
"""Distributions that a registered voice needs to speak; their installed versions are pinned in it."""


def run(evaluation: str, name: str) -> dict[str, Any]:
    """Register the evaluated voice, or find the version that already holds it.

    Args:
        evaluation: Path of the pointer that `evaluate` wrote.
        name: Registered model.

    Returns:
        The evaluation's pointer with `name` and `version`.

    Raises:
        StepError: the tracking server did not take the training's records.
    """
    evaluated = read_pointer(evaluation)
    state = State.locate()
    voice = Path(evaluated["voice"])
    fingerprint = evaluated["voice_hash"]
    with state.lock(f"register-{name}"):
        registry = Registry(state)
        found = next((item for item in registry.versions(name) if item.tags.get("voice.sha256") == fingerprint), None)
        measured = measures(read_json(Path(evaluated["folder"]) / "metrics.json"))
        tags = {f"{MEASURE}{key}": str(value) for key, value in measured.items() if value is not None}
        version = found.number if found else _create(registry, state, evaluated, name, voice, fingerprint)
        for key in found.tags if found else ():
            if key.startswith(MEASURE) and key not in tags:  # of an earlier evaluation; does not apply to this one
                registry.client.delete_model_version_tag(name, version, key)
        for key, value in tags.items():
            registry.client.set_model_version_tag(name, version, key, value)
        registry.client.set_registered_model_alias(name, CANDIDATE, version)
    return {**evaluated, "name": name, "version": version, "summary": f"{name} version {version}"}


def _create(
    registry: Registry, state: State, evaluated: Mapping[str, Any], name: str, voice: Path, fingerprint: str
) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    delivery = Delivery(state, Path(evaluated["spool"]))
    if not delivery.run_id or delivery.pending():
        delivery.attempt()
    if not delivery.run_id:
        raise StepError(
            f"the MLflow server did not take the records in {evaluated['spool']}, so there is no run to register from; "
            "see that it answers, then run the pipeline again"
        )
    lineage_tags = {
        **lineage.current(),
        "dvc.data": evaluated["data"],
        "features.hash": evaluated["features_hash"],
        "weights.sha256": evaluated["hash"],
        "voice.sha256": fingerprint,
    }
    for key, value in lineage_tags.items():
        registry.client.set_tag(delivery.run_id, key, value)
    # The environment may carry another run's id (KFP's MLflow plugin): the training's own run is meant here.
    os.environ.pop("MLFLOW_RUN_ID", None)
    logged = outlast(
        lambda: log_voice(voice, delivery.run_id, _speaker_encoder(state, voice)),
        lambda error: isinstance(error, (MlflowException, OSError, *storage_errors())),
        f"uploading {name}",
    )
    registered = mlflow.register_model(logged, name, tags=lineage_tags)
    registry.client.set_terminated(delivery.run_id, status="FINISHED")
    return str(registered.version)


def _speaker_encoder(state: State, voice: Path) -> Path | None:
    """The pretrained speaker encoder that the voice clones with: a server has no wheel to take its weights from."""
    from model.config.data import FeaturesConfig
    from model.speaker_encoder import load_speaker_encoder

    config = read_json(voice / "voice.json")["config"]
    if not config["model"]["use_pretrained_speaker_encoder"]:
        return None
    settings = FeaturesConfig.model_validate(config["features"])
    name = "-".join(filter(None, (settings.speaker_encoder_model, settings.speaker_encoder_sha256[:16])))
    path = state.folder("encoders") / f"{name}.safetensors"
    return path if path.is_file() else load_speaker_encoder(settings).save(path)


def log_voice(voice: Path, run_id: str, speaker_encoder: Path | None = None) -> str:
    """Log a voice, and what it clones with, as a pyfunc model of an MLflow run; returns its `models:/` address."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    import model

    optional = [ColSpec(DataType.string, key, required=False) for key in ("language", "speaker", "reference_language")]
    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, "text"),
                *optional,
                ColSpec(DataType.binary, "reference_wav", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.binary, "audio"),
                ColSpec(DataType.long, "sample_rate"),
                ColSpec(DataType.double, "seconds"),
            ]
        ),
        params=ParamSchema([ParamSpec(key, DataType.double, 1.0) for key in ("speed", "pitch_scale", "energy_scale")]),
    )
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="voice",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"voice": str(voice)} | ({"speaker_encoder": str(speaker_encoder)} if speaker_encoder else {}),
            code_paths=[str(Path(model.__file__).parent)],
            signature=signature,
            pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in REQUIREMENTS],
        )
    return info.model_uri
