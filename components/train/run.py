"""Trains the acoustic model, resumes an interrupted training, and records the training in MLflow."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import lineage
from components.contracts import PreprocessOutput, ResolveDataOutput, TrainOutput
from components.launch import launch
from components.results import Results
from components.runner import parse_settings
from components.state import State, read_json
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.training import TrainSettings
from model.corpus.manifest import read_license
from model.files import write_json

if TYPE_CHECKING:  # launched by its name, perhaps in other processes; importing it here makes it part of the code hash
    from components.train import work  # noqa: F401

MLFLOW_RUN = "MLFLOW_RUN_ID"
"""Variable of the MLflow run of this task, which the MLflow plugin of Kubeflow Pipelines (2.17) creates."""
EXPORT_ONLY = ("optimization_level", "features")
"""Sections of the exported voice that are not part of the key, since the hash of the features covers them."""


def run(data: str, features: str, settings: str, experiment: str) -> TrainOutput:
    """Trains, resumes an interrupted training, or reuses a finished one.

    Args:
        data: Path of the `ResolveDataOutput`, which the MLflow run names as its dataset.
        features: Path of the `PreprocessOutput`.
        settings: JSON of the `TrainSettings`.
        experiment: Name of the MLflow experiment.
    """
    corpus, store = ResolveDataOutput.read(data), PreprocessOutput.read(features)
    config = parse_settings(TrainSettings, settings)
    relevant = config.model_dump(mode="json", exclude=set(EXPORT_ONLY))
    code = code_hash("model.training.trainer")
    identity: dict[str, Any] = {"features": store.features_hash, "settings": relevant, "code": code}
    if data_license := read_license(corpus.corpus):  # it is part of the voice
        identity["license"] = data_license
    key = settings_hash(identity)
    state = State.locate()
    folder = state.training(key)
    request = {
        "settings": config.to_json(),
        "features": str(store.features),
        "folder": str(folder),
        "experiment": experiment,
        "license": data_license,
        "tags": {**lineage.current(), "dvc.data": corpus.data_hash, "settings.sha256": settings_hash(config)},
        "parent_run_id": os.environ.get(MLFLOW_RUN, ""),
        "dataset": {"name": experiment, "digest": corpus.data_hash, "source": str(corpus.corpus)},
    }
    with state.lock(f"training-{key}"):
        result = launch("components.train.work", request, folder)
    voice = Path(result["voice"])
    metrics = {name: value for name, value in result["metrics"].items() if name.startswith("validation/")}
    write_json(
        folder / "result.json", {"steps": result["steps"], "exported_step": result["exported_step"], "metrics": metrics}
    )
    mel = metrics.get("validation/mel")
    return TrainOutput(
        summary=f"{result['steps']} steps" + (f", validation mel {mel:.3f}" if mel is not None else ""),
        training=folder,
        voice=voice,
        weights_sha256=read_json(voice / "voice.json")["weights_sha256"],
        run_id=result["run_id"],
    )


def results(output: TrainOutput) -> Results:
    """Returns the metrics of the exported checkpoint on the validation sentences, and the number of steps."""
    result = read_json(output.training / "result.json")
    steps = {name: result[name] for name in ("steps", "exported_step")}
    return Results(metrics={**steps, **result["metrics"]})
