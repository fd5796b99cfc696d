"""Everything that changes while a run trains, and its way into a checkpoint and back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from model.acoustic.model import AcousticModel
from model.config import settings_hash
from model.config.training import TrainSettings
from model.errors import MyXTTSError
from model.features.loader import Loader
from model.features.store import FeatureStore
from model.loop.checkpoints import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    newest_loadable,
    remove_later,
    save_checkpoint,
)
from model.loop.devices import Devices, autocast_type
from model.loop.distributed import Processes
from model.loop.ema import ExponentialAverage
from model.training.adaptation import StartingPoint, freeze
from model.training.durations import DurationCache
from model.training.guards import ParameterWatch, StepGuard
from model.training.losses import AdaptiveWeights, unscheduled_weights
from model.training.optimization import PlateauBreaker, make_optimizer

log = logging.getLogger(__name__)


SHAPES_NO_WEIGHT = {
    "start_from",  # the hash of its weights counts instead
    *("buffer_size", "num_workers", "num_threads", "device", "model_gpu", "data_gpu", "enable_memory_isolation"),
    *("log_interval", "checkpoint_interval", "keep_top_k", "exported_checkpoint", "variance_restoration"),
}
"""Training settings that may change between the parts of one run, and after it: a finished one is exported again."""


class TrainingError(MyXTTSError):
    """Training cannot start or go on; the message says why and what to change."""


class RunState:
    """Model, optimiser, average, loader, guards and counters of one run.

    Args:
        config: Resolved settings.
        store: The features.
        folder: Of the checkpoints.
        devices, processes: Where and with whom it trains.
        base: Folder of the voice whose weights it starts from; None trains from scratch.
    """

    def __init__(
        self,
        config: TrainSettings,
        store: FeatureStore,
        folder: Path,
        devices: Devices,
        processes: Processes,
        base: Path | None = None,
    ) -> None:
        settings = config.training
        self.config, self.folder, self.devices, self.processes = config, folder, devices, processes
        self.start = StartingPoint(store, config, base)
        self.fingerprint = run_fingerprint(config, store, self.start.identity)
        torch.manual_seed(config.seed)
        self.model = AcousticModel(config.model, self.start.dimensions)
        self.adaptation = self.start.initialize(self.model)
        freeze(self.model, settings.freeze)
        self.model.to(devices.model)
        for stack in (self.model.encoder, self.model.decoder):
            stack.checkpointing = settings.enable_gradient_checkpointing
        if processes.rank:  # the weights are alike, dropout is not
            torch.manual_seed(config.seed + processes.rank)
        self.optimizer = make_optimizer(self.model, settings)
        self.average = ExponentialAverage(self.model, settings.ema_decay)
        float16 = autocast_type(settings, devices.model) == torch.float16
        self.scaler = torch.amp.GradScaler(devices.model.type, enabled=float16)
        self.batches = Loader(store, config, processes.rank, processes.world, pin=devices.model.type == "cuda")
        self.durations = DurationCache(self.model, store, settings.durations, config.loss.binarization_end)
        self.base_weights = unscheduled_weights(config.loss)
        self.adaptive = None
        if settings.enable_adaptive_loss_weights:
            self.adaptive = AdaptiveWeights(list(self.base_weights), settings.adaptive_weight_update_interval)
        self.guard = StepGuard(settings)
        self.plateau = PlateauBreaker(settings)
        self.watch = ParameterWatch(self.model)
        self.parts = settings.gradient_accumulation_steps
        self.step = 0
        self.saved_step = -1
        self.metrics: dict[str, float] = {}

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint of this moment (the first process does, all take part)."""
        rng = {"cpu": self.processes.all_gather_tensor(torch.get_rng_state())}
        device = next(self.model.parameters()).device
        if device.type == "cuda":
            rng["cuda"] = self.processes.all_gather_tensor(torch.cuda.get_rng_state(device))
        self.saved_step = self.step
        if not self.processes.is_first:
            return
        extra = {
            "fingerprint": self.fingerprint,
            "world": self.processes.world,
            "batches": self.batches.state_dict(),
            "guard": self.guard.state_dict(),
            "plateau": self.plateau.state_dict(),
            "durations": self.durations.state_dict(),
            "adaptive": self.adaptive.state_dict() if self.adaptive else None,
            "scaler": self.scaler.state_dict(),
            "parts": self.parts,
            "metrics": self.metrics,
        }
        tensors = (self.model.state_dict(), self.average.state_dict(), self.optimizer.state_dict())
        healthy = self.guard.bad_in_a_row == 0
        checkpoint = Checkpoint(self.step, *tensors, rng, extra, score, healthy)
        save_checkpoint(self.folder, checkpoint, self.config.training.keep_top_k)

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of this run; False where there is none.

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
                f"{path}: made with other settings or data ({extra['fingerprint']}, now {self.fingerprint}); "
                "give another output folder, or remove this one to start over"
            )
        if extra["world"] != self.processes.world:
            raise TrainingError(
                f"{path}: trained by {extra['world']} processes, now {self.processes.world}; "
                "start as many again, or give another output folder"
            )
        self._restore(path, checkpoint)
        self.batches.load_state_dict(extra["batches"])
        self.guard.load_state_dict(extra["guard"])
        self.plateau.load_state_dict(extra["plateau"])
        self.parts = extra["parts"]
        self.metrics = extra["metrics"]
        torch.set_rng_state(checkpoint.rng["cpu"][self.processes.rank].clone())
        if "cuda" in checkpoint.rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(checkpoint.rng["cuda"][self.processes.rank].clone())
        self.saved_step = self.step
        log.info("going on from %s", path)
        return True

    def go_back(self) -> Path:
        """Take the weights and moments of the last healthy checkpoint; data and random numbers go on, so that the run
        does not meet the same steps again.

        Raises:
            CheckpointError: there is none.
        """
        path = self._newest(healthy=True)
        if path is None:
            raise CheckpointError(f"{self.folder}: no healthy checkpoint to go back to; train again in another folder")
        self._restore(path, load_checkpoint(path))
        self.guard.went_back()
        self.processes.barrier()
        if self.processes.is_first:
            remove_later(self.folder, self.step)
        return path

    def _newest(self, healthy: bool) -> Path | None:
        """The newest whole checkpoint as the first process finds it: others might see one that it just wrote."""
        found = newest_loadable(self.folder, healthy) if self.processes.is_first else None
        return self.processes.broadcast(found)

    @contextmanager
    def averaged_model(self) -> Iterator[AcousticModel]:
        """A model with the averaged weights, on the data device: this one with its weights swapped, or a copy there."""
        if self.devices.data == self.devices.model:
            with self.average.applied_to(self.model):
                yield self.model
            return
        copy = AcousticModel(self.config.model, self.model.dimensions).to(self.devices.data)
        copy.load_state_dict(self.average.state_dict())
        yield copy

    def _restore(self, path: Path, checkpoint: Checkpoint) -> None:
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


def run_fingerprint(config: TrainSettings, store: FeatureStore, base: str = "") -> str:
    """Hash of all that shapes the weights: settings, data and base voice. Only runs of equal fingerprint are resumed.

    Args:
        config: Settings of the run.
        store: Its features.
        base: Hash of the weights that it starts from (`StartingPoint.identity`); empty from scratch.
    """
    told = config.model_dump(mode="json", include={"model", "loss", "training", "seed"})
    told["training"] = {key: value for key, value in told["training"].items() if key not in SHAPES_NO_WEIGHT}
    return settings_hash(told, {"features": store.content_hash, "base": base})
