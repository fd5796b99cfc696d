"""The training loop: from a feature store to a voice, in one readable pass, resumable at every step.

What a run leaves in its output folder: `checkpoints/` (last and best), `plots/` and `samples/` per validation,
`history.jsonl` (every logged value), and at the end `voice/`, the export that synthesis and the registry read.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from model.acoustic import AcousticModel, Inventory
from model.config import Config, settings_hash, subset
from model.features.batching import TrainingBatches
from model.features.store import FeatureStore
from model.text import NUM_STRESSES, NUM_SYMBOLS
from model.threads import computes_in_bfloat16, default_threads, interruptible
from model.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from model.training.durations import DurationCache
from model.training.logging import NullLogger, RunLogger
from model.training.losses import loss_terms, loss_weights, weighted_sum
from model.training.optimization import ExponentialAverage, clip_gradients, make_optimizer
from model.training.schedule import learning_rate
from model.training.speakers import describe_speakers
from model.training.validation import validate, write_previews
from model.voice import Voice, write_voice

log = logging.getLogger(__name__)

PRIMARY_MEASURE = "validation/mel"
"""What "best" means: unweighted, so that no loss weight can move it."""


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why and what to change."""


class StopTraining(Exception):
    """Raised by `on_validation` to end a run early (a pruned trial); the run keeps its checkpoints."""


@dataclass
class TrainingResult:
    """How a run ended: steps done, the step of the exported weights, the voice folder, the last validation."""

    steps: int
    exported_step: int
    voice: Path
    metrics: dict[str, float]


@dataclass
class _Progress:
    """What is counted while running; the part in the checkpoint is `saved`."""

    step: int = 0
    saved_step: int = 0
    skipped_in_a_row: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def saved(self) -> dict:
        return {"skipped_in_a_row": self.skipped_in_a_row, "metrics": self.metrics}


def train(
    config: Config,
    features: Path,
    output: Path,
    logger: RunLogger | None = None,
    on_validation: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainingResult:
    """Train an acoustic model, or go on where an interrupted run of the same settings stopped.

    Args:
        config: Resolved settings.
        features: A feature store.
        output: Folder of this run. A finished run in it is returned at once.
        logger: Receives metrics, plots and audio.
        on_validation: Called with (step, metrics) after each validation; may raise `StopTraining`.

    Raises:
        TrainingError: the folder belongs to other settings, or too many steps in a row were not finite.
        FeatureError: the store was made with another extractor or symbol table.
        KeyboardInterrupt: after an interrupt, once the running step is saved.
    """
    logger = logger or NullLogger()
    store = FeatureStore(features)
    store.check(config.audio)
    torch.set_num_threads(config.training.num_threads or default_threads())
    torch.manual_seed(config.seed)

    settings = config.training
    model = AcousticModel(config.model, inventory_of(store))
    optimizer = make_optimizer(model, settings)
    average = ExponentialAverage(model, settings.ema_decay)
    batches = TrainingBatches(
        store,
        settings.batch_size,
        config.seed,
        settings.max_batch_frames,
        config.loss.contrastive_clips_per_speaker if config.loss.use_contrastive_speaker_loss else 0,
    )
    durations = DurationCache(model, store, settings.durations, config.loss.binarization_end)
    progress = _Progress()
    fingerprint = run_fingerprint(config, store)
    checkpoints = output / "checkpoints"
    mixed = settings.use_mixed_precision and computes_in_bfloat16()
    _resume(checkpoints, fingerprint, model, average, optimizer, batches, durations, progress)
    log.info(
        "training %s: %.2f M parameters, %d clips, steps %d to %d, %d threads, %s",
        config.model_size,
        sum(p.numel() for p in model.parameters()) / 1e6,
        len(store.split("train")),
        progress.step,
        settings.max_steps,
        torch.get_num_threads(),
        "bfloat16" if mixed else "float32",
    )

    def save(score: float | None = None) -> None:
        extra = {"fingerprint": fingerprint, "batches": batches.state_dict(), **progress.saved()}
        extra["durations"] = durations.state_dict()
        state = (model.state_dict(), average.state_dict(), optimizer.state_dict(), torch.get_rng_state())
        save_checkpoint(checkpoints, Checkpoint(progress.step, *state, extra, score), settings.keep_top_k)
        progress.saved_step = progress.step

    output.mkdir(parents=True, exist_ok=True)
    frames, started = 0, time.monotonic()
    bar = tqdm(total=settings.max_steps, initial=progress.step, unit="step", disable=None, mininterval=1.0)
    with interruptible() as interrupted, (output / "history.jsonl").open("a", encoding="utf-8") as history, bar:
        while progress.step < settings.max_steps:
            batch = durations.attach(next(batches))
            rate = learning_rate(progress.step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate_scale"]

            model.train()
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                output_of_model = model(batch)
            terms = loss_terms(output_of_model, batch, config.loss)
            loss = weighted_sum(terms, loss_weights(config.loss, progress.step / settings.max_steps))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = clip_gradients(model, settings.gradient_clip_value, settings.gradient_clip_norm)
            if math.isfinite(norm) and math.isfinite(float(loss.detach())):
                optimizer.step()
                progress.skipped_in_a_row = 0
            else:
                _skip(progress, settings.max_skipped_steps, batch.clip_ids, history)
            average.update(model, progress.step)
            progress.step += 1
            durations.observe(terms, progress.step / settings.max_steps)
            frames += int(batch.mel_lengths.sum())
            bar.update()

            if progress.step % settings.log_interval == 0:
                values = {f"train/{name}": float(term.detach()) for name, term in terms.items()}
                elapsed = time.monotonic() - started
                values |= {"train/loss": float(loss.detach()), "train/learning_rate": rate, "train/gradient_norm": norm}
                values["train/frames_per_second"] = frames / elapsed
                _report(history, logger, progress.step, values)
                bar.set_postfix(mel=f"{values['train/mel']:.3f}")
                frames, started = 0, time.monotonic()
            if progress.step % settings.evaluation_interval == 0 or progress.step == settings.max_steps:
                with average.applied_to(model):
                    progress.metrics = validate(model, store, config)
                    previews = write_previews(model, store, config, output, progress.step)
                _report(history, logger, progress.step, progress.metrics)
                for path in previews:
                    logger.artifact(path, path.parent.name)
                log.info(
                    "step %d of %d: %s",
                    progress.step,
                    settings.max_steps,
                    ", ".join(f"{name.split('/')[1]} {value:.3f}" for name, value in progress.metrics.items()),
                )
                save(progress.metrics[PRIMARY_MEASURE])
                if on_validation is not None:
                    on_validation(progress.step, progress.metrics)
                started = time.monotonic()
            elif progress.step % settings.checkpoint_interval == 0:
                save()
            if interrupted.is_set():
                if progress.saved_step != progress.step:  # else it would lose the score it was saved with
                    save()
                raise KeyboardInterrupt
    return _export(config, store, checkpoints, output / "voice", progress)


def inventory_of(store: FeatureStore) -> Inventory:
    """What a model of this data must know of it."""
    return Inventory(
        NUM_SYMBOLS,
        NUM_STRESSES,
        len(store.languages),
        store.speaker_vectors.shape[1],
        store.audio.n_mels,
        store.statistics.mel_mean,
        store.statistics.mel_std,
    )


def run_fingerprint(config: Config, store: FeatureStore) -> str:
    """Hash of all that shapes the weights: settings and data. Runs of equal fingerprint may continue each other."""
    return settings_hash(subset(config, "model", "loss", "training", "seed"), {"features": store.content_hash})


def _resume(
    checkpoints: Path, fingerprint: str, model, average, optimizer, batches, durations, progress: _Progress
) -> None:
    found = list_checkpoints(checkpoints)
    if not found:
        return
    path = found[-1][2]
    checkpoint = load_checkpoint(path)
    if checkpoint.extra["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{path}: made with other settings or data ({checkpoint.extra['fingerprint']}, now {fingerprint}); "
            "give another output folder, or remove this one to start over"
        )
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: does not fit this version of the model: {error}") from error
    average.load_state_dict(checkpoint.ema)
    optimizer.load_state_dict(checkpoint.optimizer)
    batches.load_state_dict(checkpoint.extra["batches"])
    durations.load_state_dict(checkpoint.extra["durations"])
    torch.set_rng_state(checkpoint.rng)
    progress.step = checkpoint.step
    progress.skipped_in_a_row = checkpoint.extra["skipped_in_a_row"]
    progress.metrics = checkpoint.extra["metrics"]
    log.info("going on from %s", path)


def _skip(progress: _Progress, limit: int, clip_ids: list[str], history) -> None:
    progress.skipped_in_a_row += 1
    history.write(json.dumps({"step": progress.step, "skipped": clip_ids}) + "\n")
    log.warning("step %d skipped: loss or gradient is not finite; clips %s", progress.step, ", ".join(clip_ids))
    if progress.skipped_in_a_row >= limit:
        raise TrainingError(
            f"{limit} steps in a row were not finite (training.max_skipped_steps), the last on clips "
            f"{', '.join(clip_ids)}; lower training.learning_rate, or look at these clips"
        )


def _report(history, logger: RunLogger, step: int, values: dict[str, float]) -> None:
    history.write(json.dumps({"step": step, **values}) + "\n")
    history.flush()
    logger.metrics(step, values)


def _export(
    config: Config, store: FeatureStore, checkpoints: Path, folder: Path, progress: _Progress
) -> TrainingResult:
    last = list_checkpoints(checkpoints)[-1][2]
    chosen = load_checkpoint(last if config.training.exported_checkpoint == "last" else best_checkpoint(checkpoints))
    statistics = store.statistics
    model = AcousticModel(config.model, inventory_of(store))
    model.load_state_dict(chosen.ema)
    speakers = describe_speakers(model, store)
    voice = Voice(
        None,
        config,
        inventory_of(store),
        speakers,
        store.languages,
        store.speaker_languages,
        statistics.energy_std,
        chosen.step,
    )
    write_voice(folder, voice, chosen.ema)
    return TrainingResult(progress.step, chosen.step, folder, progress.metrics)
