"""Train the acoustic model in a folder that an interrupted run finds again, recorded in MLflow as it goes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import lineage
from components.source import code_hash
from components.state import State, write_json
from components.step import emit, read_pointer
from components.tracking import MlflowRunLogger
from model.config import Config, settings_hash
from model.config.resolution import flatten
from model.training.trainer import train

EXPORT_ONLY = ("vocoder", "optimization_level")
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
    config = Config.model_validate(told)
    shaping = {name: value for name, value in told.items() if name not in EXPORT_ONLY}
    key = settings_hash({"features": source["hash"], "settings": shaping, "code": code_hash("components.train.run")})
    state = State.locate()
    folder = state.training(key)
    with state.lock(f"training-{key}"):
        tracker = _tracker(state, folder, experiment, config, source, told)
        status = "FAILED"
        try:
            result = train(config, Path(source["folder"]), folder, ProgressLogger(tracker, config.training.max_steps))
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            tracker.close(status)
    voice = json.loads((result.voice / "voice.json").read_text("utf-8"))
    metrics = {name: value for name, value in result.metrics.items() if name.startswith("validation/")}
    write_json(
        folder / "result.json", {"steps": result.steps, "exported_step": result.exported_step, "metrics": metrics}
    )
    mel = metrics.get("validation/mel")
    return {
        "folder": str(folder),
        "voice": str(result.voice),
        "hash": voice["weights_sha256"],
        "run_id": tracker.run_id,
        "spool": str(folder / "mlflow"),
        "features": source["folder"],
        "features_hash": source["hash"],
        "corpus": source["corpus"],
        "data": source["data"],
        "summary": f"{result.steps} steps" + (f", validation mel {mel:.3f}" if mel is not None else ""),
    }


class ProgressLogger:
    """Passes on what a run produces, and says how far it is on the step's output."""

    def __init__(self, tracker: MlflowRunLogger, total: int) -> None:
        self._tracker = tracker
        self._total = total

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._tracker.metrics(step, values)
        shown = {name: round(values[name], 4) for name in ("train/mel", "validation/mel") if name in values}
        emit("train", "progress", done=step, total=self._total, **shown)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._tracker.artifact(path, folder)

    def close(self) -> None:
        """The step closes the tracker itself, since it knows how the run ended."""


def _tracker(
    state: State, folder: Path, experiment: str, config: Config, source: Mapping[str, Any], told: Mapping[str, Any]
) -> MlflowRunLogger:
    tags = {**lineage.current(), "dvc.data": source["data"], "settings.sha256": settings_hash(told)}
    return MlflowRunLogger(
        state,
        folder / "mlflow",
        experiment,
        run_name=f"{config.model_size}-{folder.name[:8]}",
        tags=tags,
        params=flatten(told),
        dataset={"name": experiment, "digest": source["data"], "source": source["corpus"]},
    )
