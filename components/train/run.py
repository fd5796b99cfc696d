"""Train the acoustic model in a folder that an interrupted run finds again, recorded in MLflow as it goes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import lineage
from components.launch import launch
from components.runner import read_pointer
from components.state import State, write_json
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.schema import Config

if TYPE_CHECKING:  # launched by its name, in processes of its own perhaps; named here, it counts as this step's code
    from components.train import work  # noqa: F401

EXPORT_ONLY = ("optimization_level",)
"""Sections that end up in the exported voice but shape no weight: changing them keeps the training."""


def run(features: str, settings: str, experiment: str) -> dict[str, Any]:
    """Train, go on, or find the training finished.

    Args:
        features: Path of the pointer that `preprocess` wrote.
        settings: JSON of the sections that training reads.
        experiment: Name of the MLflow experiment.

    Returns:
        Pointer with `folder` (the training), `voice`, `hash` (of the weights), `run_id` (MLflow) and its origins.
    """
    source = read_pointer(features)
    told = json.loads(settings)
    Config.model_validate(told)
    shaping = {name: value for name, value in told.items() if name not in EXPORT_ONLY}
    code = code_hash("model.training.trainer")
    key = settings_hash({"features": source["hash"], "settings": shaping, "code": code})
    state = State.locate()
    folder = state.training(key)
    request = {
        "settings": told,
        "features": source["folder"],
        "folder": str(folder),
        "experiment": experiment,
        "tags": {**lineage.current(), "dvc.data": source["data"], "settings.sha256": settings_hash(told)},
        "dataset": {"name": experiment, "digest": source["data"], "source": source["corpus"]},
    }
    with state.lock(f"training-{key}"):
        result = launch("components.train.work", request, folder)
    voice = json.loads((Path(result["voice"]) / "voice.json").read_text("utf-8"))
    metrics = {name: value for name, value in result["metrics"].items() if name.startswith("validation/")}
    write_json(
        folder / "result.json", {"steps": result["steps"], "exported_step": result["exported_step"], "metrics": metrics}
    )
    mel = metrics.get("validation/mel")
    return {
        "folder": str(folder),
        "voice": result["voice"],
        "hash": voice["weights_sha256"],
        "run_id": result["run_id"],
        "spool": str(folder / "mlflow"),
        "features": source["folder"],
        "features_hash": source["hash"],
        "corpus": source["corpus"],
        "data": source["data"],
        "summary": f"{result['steps']} steps" + (f", validation mel {mel:.3f}" if mel is not None else ""),
    }
