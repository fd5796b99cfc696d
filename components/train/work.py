"""The training itself, as one process or as one of several (`python -m components.train.work`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.base_voice import base_features, base_folder
from components.contracts import SPOOL
from components.feature_remote import open_store
from components.launch import is_first, worker_main
from components.progress import ProgressLogger
from components.runner import parse_settings
from components.state import State
from components.tracking import MlflowRunLogger
from model.config.resolution import flatten
from model.config.training import TrainSettings
from model.diagnosis.checklist import check_normalization, checklist, refuse
from model.loop.reporting import NullLogger
from model.training.kept_speakers import speaker_similarities
from model.training.trainer import train


def work(request: Mapping[str, Any]) -> dict[str, Any]:
    """Trains, resumes an interrupted training, or reuses a finished one; the first process records it in MLflow.

    Args:
        request: `settings` (JSON of the `TrainSettings`), `features` and `folder` (paths), and `experiment`, `tags`,
            `parent_run_id` and `dataset` of the MLflow run, and the `license` of the recordings.

    Returns:
        `voice` (folder), `steps`, `exported_step`, `metrics` and `run_id` (MLflow).

    Raises:
        ChecklistError: the settings or the data forbid the training.
    """
    config = parse_settings(TrainSettings, request["settings"])
    folder = Path(request["folder"])
    store = open_store(Path(request["features"]), State.locate())
    refuse([*checklist(config), check_normalization(store.statistics)])
    base, rehearsed = base_folder(config.training, State.locate()), None
    if base and config.training.rehearsal:
        rehearsed = open_store(base_features(base, State.locate()), State.locate())
    origin: dict[str, Any] = {
        "base": base,
        "rehearsed": rehearsed,
        "compare_speakers": speaker_similarities,
        "data_license": request["license"],
    }
    if not is_first():
        result = train(config, store, folder, NullLogger(), **origin)
        return {"voice": str(result.voice)}
    with _mlflow_run(request, config, folder) as tracker:
        logger = ProgressLogger(tracker, step="train", total=config.training.max_steps)
        result = train(config, store, folder, logger, **origin)
    return {
        "voice": str(result.voice),
        "steps": result.steps,
        "exported_step": result.exported_step,
        "metrics": result.metrics,
        "run_id": tracker.run_id,
    }


def _mlflow_run(request: Mapping[str, Any], config: TrainSettings, folder: Path) -> MlflowRunLogger:
    return MlflowRunLogger(
        State.locate(),
        folder / SPOOL,
        request["experiment"],
        run_name=f"{config.model_size}-{folder.name[:8]}",
        tags=request["tags"],
        params=flatten(json.loads(request["settings"])),
        parent_run_id=request["parent_run_id"],
        dataset=request["dataset"],
    )


if __name__ == "__main__":
    worker_main(work)
