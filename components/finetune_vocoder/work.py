"""The neural half of the step: base training where there is no checkpoint, fine-tuning, records in MLflow."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import lineage
from components.feature_remote import open_store
from components.fetching import fetch_checkpoint
from components.runner import emit
from components.state import State
from components.tracking import MlflowRunLogger, append_to_run
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.resolution import flatten
from model.config.schema import Config
from model.vocoder.architectures import variant_of
from model.vocoder.folder import read_vocoder
from model.vocoder.official import VocoderWeights
from model.vocoder_training.finetuning import BASE_KEYS, Report, base_vocoder, finetune


def work(state: State, trained: Mapping[str, Any], config: Config, folder: Path, experiment: str) -> str:
    """Make `folder/voice`, the voice with its trained vocoder, unless it is there; returns a summary.

    Args:
        state: Where base trainings are kept: they depend on the features alone, so every voice of them shares one.
        trained: The training's pointer.
        config: Settings.
        folder: Of this fine-tuning.
        experiment: MLflow experiment.
    """
    report = folder / "report.json"
    if not report.is_file() or not (folder / "voice").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with MlflowRunLogger(
            state,
            folder / "mlflow",
            experiment,
            run_name=f"vocoder-{folder.name[:8]}",
            tags={**lineage.current(), "dvc.data": trained["data"]},
            params=flatten(config.vocoder.model_dump(mode="json")),
            parent_run_id=trained["run_id"],
        ) as tracker:
            start = _start(state, trained, config, tracker)
            result = finetune(
                config,
                Path(trained["voice"]),
                open_store(Path(trained["features"]), state),
                Path(trained["corpus"]),
                start,
                folder,
                _Progress(tracker, config.vocoder.finetune_steps),
            )
        _record(state, trained, folder, result)
    measures = json.loads(report.read_text("utf-8"))
    before, after = measures["before"]["mel_distance"], measures["after"]["mel_distance"]
    return f"{config.vocoder.type}, held-out mel distance {before:.3f} -> {after:.3f} by fine-tuning"


def _start(state: State, trained: Mapping[str, Any], config: Config, tracker: MlflowRunLogger) -> VocoderWeights:
    """The weights that fine-tuning starts from: a checkpoint's, or those of a base training."""
    settings = config.vocoder
    if settings.checkpoint:
        found = fetch_checkpoint(settings.checkpoint, settings.checkpoint_sha256, state.folder("fetched"))
        return read_vocoder(found, config.audio, settings.type, variant_of(settings))
    shaping = {name: getattr(settings, name) for name in BASE_KEYS}
    identity = {"features": trained["features_hash"], "seed": config.seed, "settings": shaping}
    key = settings_hash({**identity, "code": code_hash("model.vocoder_training.trainer")})
    folder = state.vocoder(f"base-{key}")
    with state.lock(f"vocoder-base-{key}"):
        progress = _Progress(tracker, settings.max_steps, "base/")
        return base_vocoder(
            config, open_store(Path(trained["features"]), state), Path(trained["corpus"]), folder, progress
        )


def _record(state: State, trained: Mapping[str, Any], folder: Path, result: Report) -> None:
    """Put the measures and the samples into the training's own run too: that is the one the model is registered of."""
    values = {
        f"vocoder/{when}/{name}": value
        for when, measures in (("before", result.before), ("after", result.after), ("griffin_lim", result.griffin_lim))
        for name, value in measures.items()
    }
    append_to_run(state, Path(trained["spool"]), values, [folder / "report.json", *result.samples], folder="vocoder")


class _Progress:
    """Passes on what a run produces, and says how far it is on the step's output."""

    def __init__(self, tracker: MlflowRunLogger, total: int, prefix: str = "") -> None:
        self._tracker, self._total, self._prefix = tracker, total, prefix

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._tracker.metrics(step, {f"{self._prefix}{name}": value for name, value in values.items()})
        shown = {name: round(value, 4) for name, value in values.items() if name.endswith(("/mel", "/mel_distance"))}
        emit("finetune_vocoder", "progress", done=step, total=max(self._total, 1), **shown)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._tracker.artifact(path, folder)

    def close(self) -> None:
        """The tracker is closed by `work`, which knows how the run ended."""
