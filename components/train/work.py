"""The training itself: what one process does, alone or as one of several (`python -m components.train.work`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.feature_remote import open_store
from components.launch import is_first, worker_main
from components.runner import emit
from components.state import State
from components.tracking import MlflowRunLogger
from model.config.resolution import flatten
from model.config.schema import Config
from model.diagnosis.checklist import check_normalization, checklist, refuse
from model.loop.reporting import NullLogger
from model.training.trainer import train


def work(request: Mapping[str, Any]) -> dict[str, Any]:
    """Train, go on, or find the training finished; the first process records it in MLflow.

    Args:
        request: `settings`, `features` and `folder` (paths), `experiment`, `tags` and `dataset` of the MLflow run.

    Returns:
        `voice` (folder), `steps`, `exported_step`, `metrics` and `run_id` (MLflow).

    Raises:
        ChecklistError: settings or data forbid it.
    """
    config = Config.model_validate(request["settings"])
    folder = Path(request["folder"])
    store = open_store(Path(request["features"]), State.locate())
    refuse([*checklist(config), check_normalization(store.statistics)])
    if not is_first():
        result = train(config, store, folder, NullLogger())
        return {"voice": str(result.voice)}
    with _tracker(request, config, folder) as tracker:
        result = train(config, store, folder, ProgressLogger(tracker, config.training.max_steps))
    return {
        "voice": str(result.voice),
        "steps": result.steps,
        "exported_step": result.exported_step,
        "metrics": result.metrics,
        "run_id": tracker.run_id,
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
        """`work` closes the tracker itself, since it knows how the run ended."""


def _tracker(request: Mapping[str, Any], config: Config, folder: Path) -> MlflowRunLogger:
    return MlflowRunLogger(
        State.locate(),
        folder / "mlflow",
        request["experiment"],
        run_name=f"{config.model_size}-{folder.name[:8]}",
        tags=request["tags"],
        params=flatten(request["settings"]),
        dataset=request["dataset"],
    )


if __name__ == "__main__":
    worker_main(work)
