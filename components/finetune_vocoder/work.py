"""Trains and fine-tunes a neural vocoder for a voice, and records both in MLflow."""

import json
from pathlib import Path
from typing import Any

from components import lineage
from components.contracts import SPOOL, PreprocessOutput, ResolveDataOutput, TrainOutput
from components.feature_remote import open_store
from components.fetching import fetch_checkpoint
from components.progress import ProgressLogger
from components.state import State
from components.tracking import Delivery, MlflowRunLogger, append_to_run
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.resolution import flatten
from model.config.vocoder import FinetuneVocoderSettings
from model.vocoder.architectures import variant_of
from model.vocoder.folder import read_vocoder
from model.vocoder.official import VocoderWeights
from model.vocoder_training.finetuning import BASE_KEYS, FROM_WEIGHTS_KEYS, Report, base_vocoder, finetune

STEP = "finetune_vocoder"


def work(
    *,
    state: State,
    corpus: ResolveDataOutput,
    store: PreprocessOutput,
    trained: TrainOutput,
    config: FinetuneVocoderSettings,
    base: Path | None,
    folder: Path,
    experiment: str,
) -> str:
    """Makes `folder/voice`, the voice with its trained vocoder, unless it exists already; returns a summary.

    Args:
        state: Where base trainings are kept; voices of the same features share one.
        corpus: The recordings.
        store: Their features.
        trained: The voice and its MLflow run.
        config: Settings of the step.
        base: Vocoder of the voice that the training started from; None to train one from scratch.
        folder: Folder of this fine-tuning.
        experiment: MLflow experiment.
    """
    report = folder / "report.json"
    if not report.is_file() or not (folder / "voice").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with MlflowRunLogger(
            state,
            folder / SPOOL,
            experiment,
            run_name=f"vocoder-{folder.name[:8]}",
            tags={**lineage.current(), "dvc.data": corpus.data_hash},
            params=flatten(config.vocoder.model_dump(mode="json")),
            parent_run_id=Delivery(state, trained.spool).run_id or trained.run_id,
        ) as tracker:
            start = _starting_weights(state, corpus, store, config, base, tracker)
            result = finetune(
                config,
                trained.voice,
                open_store(store.features, state),
                corpus.corpus,
                start,
                folder,
                ProgressLogger(tracker, step=STEP, total=config.vocoder.finetune_steps),
            )
        _record(state, trained, folder, result)
    metrics = json.loads(report.read_text("utf-8"))
    before, after = metrics["before"]["mel_distance"], metrics["after"]["mel_distance"]
    return f"{config.vocoder.type}, held-out mel distance {before:.3f} -> {after:.3f} by fine-tuning"


def _starting_weights(
    state: State,
    corpus: ResolveDataOutput,
    store: PreprocessOutput,
    config: FinetuneVocoderSettings,
    base: Path | None,
    tracker: MlflowRunLogger,
) -> VocoderWeights:
    """Returns the weights that fine-tuning starts from: a checkpoint, or those of a training on the recordings.

    That training starts from the vocoder in `base`, or from scratch.
    """
    settings = config.vocoder
    if settings.checkpoint:
        found = fetch_checkpoint(settings.checkpoint, settings.checkpoint_sha256, state.folder("fetched"))
        return read_vocoder(found, config.audio, settings.type, variant_of(settings))
    base_settings = {name: getattr(settings, name) for name in BASE_KEYS}
    identity: dict[str, Any] = {"features": store.features_hash, "seed": config.seed, "settings": base_settings}
    start = None
    if base is not None:
        start = read_vocoder(base, config.audio, settings.type, variant_of(settings))
        identity |= {"from": start.content_hash(), **{name: getattr(settings, name) for name in FROM_WEIGHTS_KEYS}}
    key = settings_hash({**identity, "code": code_hash("model.vocoder_training.trainer")})
    folder = state.vocoder(f"base-{key}")
    with state.lock(f"vocoder-base-{key}"):
        progress = ProgressLogger(tracker, step=STEP, total=settings.max_steps, prefix="base/")
        return base_vocoder(config, open_store(store.features, state), corpus.corpus, folder, progress, start)


def _record(state: State, trained: TrainOutput, folder: Path, result: Report) -> None:
    """Adds metrics and samples to the MLflow run of the training too, since the model is registered from that run."""
    values = {
        f"vocoder/{when}/{name}": value
        for when, metrics in (("before", result.before), ("after", result.after), ("griffin_lim", result.griffin_lim))
        for name, value in metrics.items()
    }
    append_to_run(state, trained.spool, values, [folder / "report.json", *result.samples], folder="vocoder")
