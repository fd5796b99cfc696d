"""State of an acoustic training run, its checkpoints, and its restoration from them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from model.acoustic.model import AcousticModel
from model.config import settings_hash
from model.config.training import TrainSettings
from model.errors import MyXTTSError
from model.features.loader import Loader, RehearsalLoader
from model.features.store import FeatureStore
from model.loop.checkpoints import (
    Checkpoint,
    CheckpointError,
    describe_differences,
    load_checkpoint,
    newest_loadable,
    remove_checkpoints_after,
    save_checkpoint,
)
from model.loop.devices import Devices, autocast_type
from model.loop.distributed import Processes
from model.loop.ema import ExponentialAverage
from model.speaker_encoder import MelResemblyzer, Resemblyzer, load_speaker_encoder
from model.training.adaptation import SpeakerComparison, StartingPoint, freeze
from model.training.durations import DurationCache
from model.training.losses import AdaptiveLossWeights, SpeakerConsistency, constant_weights, embed_speakers
from model.training.optimization import PlateauScheduler, make_optimizer, scheduled_learning_rate
from model.training.stability import DivergenceDetector, ParameterMonitor

log = logging.getLogger(__name__)

NOT_IN_FINGERPRINT = {
    *("start_from", "start_from_sha256"),  # the hash of the weights counts instead
    *("buffer_size", "num_workers", "num_threads", "device", "model_gpu", "data_gpu", "enable_memory_isolation"),
    *("log_interval", "checkpoint_interval", "keep_top_k", "exported_checkpoint", "variance_restoration"),
    *("keep_speakers", "base_interpolation"),
}
"""Training settings that do not affect the trained weights: they may change when a run is resumed or exported again."""


class TrainingError(MyXTTSError):
    """Training cannot start or continue; the message says why and what to change."""


class TrainingState:
    """Model, optimizer, moving average, loader, monitors and counters of one run.

    Args:
        config: Resolved settings.
        store: The features.
        folder: Folder of the checkpoints.
        devices: Devices of training and validation.
        processes: Processes that train together.
        base: Folder of the voice whose weights training starts from; None trains from scratch.
        rehearsed: Features of the base, for `training.rehearsal`.
        compare_speakers: See `StartingPoint`.

    Attributes:
        start: Starting point: the base voice, the languages and the dimensions of the model.
        consistency: Speaker consistency loss with a pretrained encoder; None where it is not used.
        adaptation: Report on the weights copied from the base voice; None from scratch.
        identity: Settings and data that determine the weights, by dotted key.
        constant_weights: Weights of the loss terms without a schedule.
        micro_batches: Number of micro-batches that a batch is computed in.
        step: Optimizer steps done.
        saved_step: Step of the last checkpoint.
        metrics: Metrics of the last validation.
    """

    def __init__(
        self,
        *,
        config: TrainSettings,
        store: FeatureStore,
        folder: Path,
        devices: Devices,
        processes: Processes,
        base: Path | None = None,
        rehearsed: FeatureStore | None = None,
        compare_speakers: SpeakerComparison | None = None,
    ) -> None:
        settings = config.training
        self.config, self.folder, self.devices, self.processes = config, folder, devices, processes
        self.start = StartingPoint(store, config, base, compare_speakers)
        self.fingerprint = run_fingerprint(config, store, self.start.identity)
        self.identity = run_identity(config, store, self.start.identity)
        torch.manual_seed(config.seed)
        self.model = AcousticModel(config.model, self.start.dimensions)
        self.adaptation = self.start.initialize(self.model)
        freeze(self.model, settings.freeze)
        self.model.to(devices.model)
        self.consistency = speaker_consistency(config, [store, *([rehearsed] if rehearsed else [])], devices.model)
        for stack in (self.model.encoder, self.model.decoder):
            stack.checkpointing = settings.enable_gradient_checkpointing
        if processes.rank:  # equal initial weights, but different dropout in each process
            torch.manual_seed(config.seed + processes.rank)
        self.optimizer = make_optimizer(self.model, settings)
        self.average = ExponentialAverage(self.model, settings.ema_decay)
        float16 = autocast_type(settings, devices.model) == torch.float16
        self.scaler = torch.amp.GradScaler(devices.model.type, enabled=float16)
        self.batches = self._loader(store, rehearsed)
        self.durations = DurationCache(
            self.model, store, mode=settings.durations, earliest=config.loss.binarization_end
        )
        self.constant_weights = constant_weights(config.loss)
        self.adaptive = None
        if settings.enable_adaptive_loss_weights:
            self.adaptive = AdaptiveLossWeights(list(self.constant_weights), settings.adaptive_weight_update_interval)
        self.divergence = DivergenceDetector(settings)
        self.plateau = PlateauScheduler(settings)
        self.parameters = ParameterMonitor(self.model)
        self.micro_batches = settings.gradient_accumulation_steps
        self.step = 0
        self.saved_step = -1
        self.metrics: dict[str, float] = {}

    def _loader(self, store: FeatureStore, rehearsed: FeatureStore | None) -> Loader | RehearsalLoader:
        """Returns the loader of the corpus, or of corpus and base.

        Raises:
            AdaptationError: rehearsal without the base's features.
            FeatureError: the features do not fit the settings, or each other.
        """
        self.start.check_rehearsal(rehearsed)
        rank, world, pin = self.processes.rank, self.processes.world_size, self.devices.model.type == "cuda"
        if rehearsed is None:
            return Loader(store, self.config, rank, world, pin)
        languages = self.start.languages
        return RehearsalLoader(store, rehearsed, self.config, languages, rank=rank, world=world, pin=pin)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step: schedule, reaction to a plateau, and reduction by rollbacks."""
        scheduled = scheduled_learning_rate(self.step, self.config.training)
        return self.divergence.learning_rate_factor * self.plateau.learning_rate(self.step, scheduled)

    def save(self, score: float | None = None) -> None:
        """Writes a checkpoint of the current step. The first process writes it, all take part.

        Args:
            score: Validation metric of this step, lower is better.
        """
        rng = {"cpu": self.processes.all_gather_tensor(torch.get_rng_state())}
        device = next(self.model.parameters()).device
        if device.type == "cuda":
            rng["cuda"] = self.processes.all_gather_tensor(torch.cuda.get_rng_state(device))
        self.saved_step = self.step
        if not self.processes.is_first:
            return
        extra = {
            "fingerprint": self.fingerprint,
            "identity": self.identity,
            "world_size": self.processes.world_size,
            "batches": self.batches.state_dict(),
            "divergence": self.divergence.state_dict(),
            "plateau": self.plateau.state_dict(),
            "durations": self.durations.state_dict(),
            "adaptive": self.adaptive.state_dict() if self.adaptive else None,
            "scaler": self.scaler.state_dict(),
            "micro_batches": self.micro_batches,
            "metrics": self.metrics,
        }
        checkpoint = Checkpoint(
            step=self.step,
            model=self.model.state_dict(),
            ema=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            rng=rng,
            extra=extra,
            score=score,
            healthy=self.divergence.consecutive_bad_steps == 0,
        )
        save_checkpoint(self.folder, checkpoint, self.config.training.keep_top_k)

    def resume(self) -> bool:
        """Restores the newest intact checkpoint of this run; returns False where there is none.

        Raises:
            TrainingError: the checkpoints are of other settings, data or number of processes.
        """
        path = self._newest(healthy=False)
        if path is None:
            return False
        checkpoint = load_checkpoint(path)
        extra = checkpoint.extra
        if extra["fingerprint"] != self.fingerprint:
            raise TrainingError(
                f"{path}: made with other settings or data: "
                f"{describe_differences(extra.get('identity', {}), self.identity)}; "
                "change it back, give another output folder, or remove this one to start over"
            )
        if extra["world_size"] != self.processes.world_size:
            raise TrainingError(
                f"{path}: trained by {extra['world_size']} processes, now {self.processes.world_size}; "
                "start as many again, or give another output folder"
            )
        self._restore(path, checkpoint)
        self.batches.load_state_dict(extra["batches"])
        self.divergence.load_state_dict(extra["divergence"])
        self.plateau.load_state_dict(extra["plateau"])
        self.micro_batches = extra["micro_batches"]
        self.metrics = extra["metrics"]
        torch.set_rng_state(checkpoint.rng["cpu"][self.processes.rank].clone())
        if "cuda" in checkpoint.rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(checkpoint.rng["cuda"][self.processes.rank].clone())
        self.saved_step = self.step
        log.info("resuming from %s", path)
        return True

    def roll_back(self) -> Path:
        """Restores weights and moments of the last healthy checkpoint, removes later ones, and returns its folder.

        The positions of data and random number generators are kept, so that the run does not repeat the same steps.

        Raises:
            CheckpointError: there is no healthy checkpoint.
        """
        path = self._newest(healthy=True)
        if path is None:
            raise CheckpointError(f"{self.folder}: no healthy checkpoint to roll back to; train in another folder")
        self._restore(path, load_checkpoint(path))
        self.divergence.record_rollback()
        self.processes.barrier()
        if self.processes.is_first:
            remove_checkpoints_after(self.folder, self.step)
        return path

    def _newest(self, healthy: bool) -> Path | None:
        """Returns the newest intact checkpoint that the first process finds: others might see one being written."""
        found = newest_loadable(self.folder, healthy) if self.processes.is_first else None
        return self.processes.broadcast(found)

    @contextmanager
    def averaged_model(self) -> Iterator[AcousticModel]:
        """Yields a model with the averaged weights on the data device: a copy, or this model with swapped weights."""
        if self.devices.data == self.devices.model:
            with self.average.applied_to(self.model):
                yield self.model
            return
        copy = AcousticModel(self.config.model, self.model.dimensions).to(self.devices.data)
        copy.load_state_dict(self.average.state_dict())
        yield copy

    def _restore(self, path: Path, checkpoint: Checkpoint) -> None:
        """Loads the parts of a checkpoint that are restored both by resuming and by a rollback."""
        try:
            self.model.load_state_dict(checkpoint.model)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: does not fit this version of the model: {error}") from error
        self.average.load_state_dict(checkpoint.ema)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        if self.adaptive:
            self.adaptive.load_state_dict(checkpoint.extra["adaptive"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint.extra["scaler"])
        self.durations.load_state_dict(checkpoint.extra["durations"])
        self.step = checkpoint.step


def speaker_consistency(
    config: TrainSettings, stores: Sequence[FeatureStore], device: torch.device
) -> SpeakerConsistency | None:
    """Returns the speaker consistency loss with the pretrained encoder of the settings, or None where it is not used.

    Args:
        config: Settings of the run.
        stores: Features that batches come from; their speakers are numbered in this order.
        device: Device of the model.

    Raises:
        SpeakerEncoderError: the weights of the encoder are missing or damaged.
    """
    if not (config.model.use_speaker_consistency_loss and config.model.use_pretrained_speaker_encoder):
        return None
    encoder = load_speaker_encoder(config.features)
    assert isinstance(encoder, Resemblyzer)  # the configuration allows the loss with no other encoder
    embed = MelResemblyzer(config.audio, encoder).to(device)
    return SpeakerConsistency(embed, torch.cat([embed_speakers(store, embed) for store in stores]).clone())


def run_fingerprint(config: TrainSettings, store: FeatureStore, base: str = "") -> str:
    """Returns the hash of all that determines the weights; runs of equal hash may be resumed.

    Args:
        config: Settings of the run.
        store: Its features.
        base: Hash of the weights that it starts from (`StartingPoint.identity`); empty from scratch.
    """
    return settings_hash(_weight_settings(config), {"features": store.content_hash, "base": base})


def run_identity(config: TrainSettings, store: FeatureStore, base: str = "") -> dict[str, Any]:
    """Returns the values that `run_fingerprint` hashes, by dotted key, for errors about runs that cannot be resumed."""
    settings = _weight_settings(config)
    sections = {name: value for name, value in settings.items() if isinstance(value, dict)}
    named = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    hashes = {"hash of the features": store.content_hash, "hash of the base voice": base or "none"}
    return {**named, "seed": config.seed, **hashes}


def _weight_settings(config: TrainSettings) -> dict[str, Any]:
    """Returns the settings that determine the weights."""
    settings = config.model_dump(mode="json", include={"model", "loss", "training", "seed"})
    settings["training"] = {key: value for key, value in settings["training"].items() if key not in NOT_IN_FINGERPRINT}
    return settings
