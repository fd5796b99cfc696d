"""Registers a voice as a model version, with its lineage and metrics as tags and the alias `candidate`."""

import importlib.metadata
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import model
from components import lineage
from components.artifacts import ARTIFACT_TAG, VOICE_TAG, hash_of_upload
from components.contracts import (
    EvaluateOutput,
    FinetuneVocoderOutput,
    PreprocessOutput,
    RegisterOutput,
    ResolveDataOutput,
    StepError,
    TrainOutput,
)
from components.gate.comparison import Evaluation
from components.gate.metrics import gate_metrics
from components.outage import retry_during_outage, storage_errors
from components.register.card import mean_metrics, model_card
from components.registry import SCHEME, Registry, Version
from components.results import Results
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
    "pyloudnorm",
    "pypinyin",
    "PyYAML",
    "safetensors",
    "scipy",
    "soundfile",
    "soxr",
    "torch",
)
"""Packages that a registered voice needs for synthesis; the model pins their installed versions."""

MODEL_CODE = Path(model.__file__).parent
PYFUNC_MODEL = Path(__file__).with_name("pyfunc_model.py")
"""Code that is registered with a voice."""


def run(
    data: str, features: str, training: str, finetuning: str, evaluation: str, name: str, origin: str = "{}"
) -> RegisterOutput:
    """Registers the evaluated voice, or reuses the version that already holds it and still has its files.

    Args:
        data: Path of the `ResolveDataOutput`, whose hash becomes a tag.
        features: Path of the `PreprocessOutput`, whose hash becomes a tag.
        training: Path of the `TrainOutput`, whose MLflow run the version belongs to.
        finetuning: Path of the `FinetuneVocoderOutput`, whose voice is registered.
        evaluation: Path of the `EvaluateOutput`, whose metrics become tags.
        name: Registered model.
        origin: Further tags as JSON, such as the study and the trial that the settings of the training come from.

    Raises:
        StepError: the tracking server did not take the records of the training.
    """
    corpus, store = ResolveDataOutput.read(data), PreprocessOutput.read(features)
    trained, voice = TrainOutput.read(training), FinetuneVocoderOutput.read(finetuning)
    evaluated = read_json(EvaluateOutput.read(evaluation).evaluation / "metrics.json")
    metrics = gate_metrics(evaluated)
    values = {key: str(value) for key, value in metrics.items() if value is not None}
    lineage_tags = {
        **lineage.current(),
        "dvc.data": corpus.data_hash,
        "features.hash": store.features_hash,
        "weights.sha256": trained.weights_sha256,
        VOICE_TAG: voice.voice_hash,
    }
    lineage_tags |= (origin_tags := json.loads(origin))
    described = read_json(voice.voice / "voice.json")
    lineage_tags |= base_tags(described.get("lineage", []))
    if licenses := described.get("licenses"):
        lineage_tags["data.license"] = "; ".join(licenses)
    state = State.locate()
    with state.lock(f"register-{name}"):
        registry = Registry(state)
        if not (equal := _equal_versions(registry, name, voice.voice_hash)):
            example = example_request(described, evaluated)
            _create(registry, state, trained.spool, voice.voice, name, lineage_tags, example)
            equal = _equal_versions(registry, name, voice.voice_hash)
        version = equal[0].number
        for duplicate in equal[1:]:  # another machine registered the same voice at the same time
            if not duplicate.aliases:
                registry.client.delete_model_version(name, duplicate.number)
        for key, value in origin_tags.items():  # an equal voice may have been registered without a study
            registry.client.set_model_version_tag(name, version, key, value)
        card = model_card(name, described, evaluated, {**lineage_tags, **equal[0].tags})
        registry.client.update_model_version(name, version, description=card)
        _attach_metrics(registry, equal[0], {**mean_metrics(evaluated), **metrics})
        registry.make_candidate(name, version, values)
    return RegisterOutput(summary=f"{name} version {version}", name=name, version=version)


def results(output: RegisterOutput) -> Results:
    """Returns the address of the version: its page if MLflow is a server, else the address that commands take."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if server.startswith(("http://", "https://")):
        return Results(model=f"{server}/#/models/{quote(output.name)}/versions/{output.version}")
    return Results(model=f"models:/{output.name}/{output.version}")


def _equal_versions(registry: Registry, name: str, voice_hash: str) -> list[Version]:
    """Returns the versions that hold a voice and still have its files, oldest first."""
    equal = [item for item in reversed(registry.versions(name)) if item.tags.get(VOICE_TAG) == voice_hash]
    return [item for item in equal if registry.has_files(item)]


def base_tags(ancestors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the tags that name the voice a training started from, and the chain of its ancestors, youngest first."""
    if not ancestors:
        return {}
    return {
        "base.uri": ancestors[0]["uri"],
        "base.weights_sha256": ancestors[0]["weights_sha256"],
        "base.chain": " <- ".join(entry["uri"] for entry in ancestors),
    }


def example_request(voice: Mapping[str, Any], evaluation: Evaluation) -> dict[str, str]:
    """Returns a request that a served voice fulfills: a sentence of its evaluation, by its speaker."""
    clips = [clip for clip in evaluation["clips"] if clip["speaker"] in voice.get("speakers", {})]
    if not clips:
        return {"text": "One two three."}
    return {"text": clips[0]["text"], "language": clips[0]["language"], "speaker": clips[0]["speaker"]}


def _attach_metrics(registry: Registry, version: Version, metrics: Mapping[str, float | None]) -> None:
    """Puts metrics on the logged model of a version, in whose page and comparisons MLflow shows them."""
    from mlflow.entities import Metric

    model_id = version.source.removeprefix(SCHEME)
    if not version.source.startswith(SCHEME) or not version.run_id:
        return
    now = int(time.time() * 1000)
    values = {key: value for key, value in metrics.items() if value is not None}
    entries = [Metric(f"evaluation/{key}", value, now, 0, model_id=model_id) for key, value in values.items()]
    registry.client.log_batch(version.run_id, metrics=entries)


def _create(
    registry: Registry,
    state: State,
    spool: Path,
    voice: Path,
    name: str,
    lineage_tags: Mapping[str, str],
    example: Mapping[str, str],
) -> None:
    """Uploads a voice as a new version."""
    import mlflow
    from mlflow.exceptions import MlflowException

    delivery = Delivery(state, spool)
    delivery.attempt()  # also finds out whether this MLflow has the run
    if not delivery.run_id:
        raise StepError(
            f"MLflow did not take the records in {spool}, so there is no run to register from; correct this, then run "
            f"the pipeline again: {delivery.error}"
        )
    for key, value in lineage_tags.items():
        registry.client.set_tag(delivery.run_id, key, value)
    # The environment may hold the id of another run (KFP's MLflow plugin); the version belongs to the training's run.
    os.environ.pop("MLFLOW_RUN_ID", None)
    encoder = _speaker_encoder(state, voice)

    def upload() -> tuple[str, str]:
        logged = log_voice(voice, delivery.run_id, example, encoder)
        sources = [voice, MODEL_CODE, PYFUNC_MODEL, *([encoder] if encoder else [])]
        return logged, hash_of_upload(Path(mlflow.artifacts.download_artifacts(logged)), sources)

    logged, artifact_hash = retry_during_outage(
        upload,
        lambda error: isinstance(error, (MlflowException, OSError, *storage_errors())),
        f"uploading {name}",
    )
    registry.client.set_tag(delivery.run_id, ARTIFACT_TAG, artifact_hash)
    registry.client.set_terminated(delivery.run_id, status="FINISHED")
    mlflow.register_model(logged, name, tags={**lineage_tags, ARTIFACT_TAG: artifact_hash})


def _speaker_encoder(state: State, voice: Path) -> Path | None:
    """Returns the weights of the pretrained speaker encoder that the voice clones with; `None` where it uses none.

    They are registered with the voice, since a server may lack the package that they come with.
    """
    from model.config.data import FeaturesConfig
    from model.speaker_encoder import load_speaker_encoder

    config = read_json(voice / "voice.json")["config"]
    if not config["model"]["use_pretrained_speaker_encoder"]:
        return None
    settings = FeaturesConfig.model_validate(config["features"])
    name = "-".join(filter(None, (settings.speaker_encoder_model, settings.speaker_encoder_sha256[:16])))
    path = state.folder("encoders") / f"{name}.safetensors"
    return path if path.is_file() else load_speaker_encoder(settings).save(path)


def log_voice(voice: Path, run_id: str, example: Mapping[str, str], speaker_encoder: Path | None = None) -> str:
    """Logs a voice and its speaker encoder as a pyfunc model of an MLflow run; returns its `models:/` address.

    Args:
        voice: Folder of the voice.
        run_id: The run.
        example: A request, kept with the model as its input example.
        speaker_encoder: Weights of the pretrained speaker encoder; None where the voice uses none.
    """
    import mlflow
    import pandas as pd

    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="voice",
            python_model=str(PYFUNC_MODEL),
            artifacts={"voice": str(voice)} | ({"speaker_encoder": str(speaker_encoder)} if speaker_encoder else {}),
            code_paths=[str(MODEL_CODE)],
            signature=voice_signature(),
            input_example=(pd.DataFrame([example]), {"speed": 1.0}),
            pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in REQUIREMENTS],
        )
    return info.model_uri


def voice_signature() -> Any:
    """Returns MLflow's signature of a voice: the columns and parameters of `VoiceModel.predict`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    optional = [ColSpec(DataType.string, key, required=False) for key in ("language", "speaker", "reference_language")]
    return ModelSignature(
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
