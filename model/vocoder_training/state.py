"""Everything that changes while a vocoder trains, and its way into a checkpoint and back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.errors import VocoderError
from model.loop.checkpoints import Checkpoint, load_checkpoint, newest_loadable, save_checkpoint
from model.loop.devices import choose_device
from model.loop.ema import ExponentialAverage
from model.vocoder.architectures import ARCHITECTURES, Recipe, build_generator, variant_of
from model.vocoder.neural import NeuralVocoder
from model.vocoder.official import VocoderWeights
from model.vocoder.weights import load_weights, official_state

log = logging.getLogger(__name__)


GENERATOR, DISCRIMINATORS = "generator", "discriminators"


WEIGHT_DECAY = 0.01


class VocoderTrainingError(VocoderError):
    """Training cannot start or go on; the message says why and what to change."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training of a vocoder is to do.

    Attributes:
        settings: Section `vocoder`.
        audio: Mel settings.
        steps: In all.
        seed: Of initial weights and of the segments.
        fingerprint: Tells settings and data; the folder of another run is refused.
        start: Weights to go on from; those of discriminators are taken along where they are there.
    """

    settings: VocoderConfig
    audio: AudioConfig
    steps: int
    seed: int
    fingerprint: str
    start: VocoderWeights | None = None


class RunState:
    """Both networks, their optimiser, the averaged generator and the counters of one run.

    Args:
        plan: What it is to do.
        folder: Of the checkpoints.

    Attributes:
        fresh: Whether the discriminators start untrained.
        adversarial_start: Share of the steps before the discriminators join.
        rate: Learning rate of the first step.
        step: Steps done.
    """

    def __init__(self, plan: TrainingPlan, folder: Path) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.folder = plan, folder
        settings, audio, start = plan.settings, plan.audio, plan.start
        self.settings, self.audio = settings, audio
        self.kind, self.variant = (start.kind, start.variant) if start else (settings.type, variant_of(settings))
        self.recipe = recipe_of(settings, self.kind)
        self.device = choose_device(settings.device, "vocoder.device")
        self.generator = build_generator(self.kind, self.variant, audio).to(self.device)
        self.discriminators = ARCHITECTURES[self.kind].discriminators(self.variant).to(self.device)
        if settings.enable_compile:
            self.generator.compile(dynamic=False)
        if start is not None:
            load_weights(self.generator, start.generator, start.origin)
            for name, state in start.discriminators.items():
                load_weights(self.discriminators[name], state, f"{start.origin}, {name}")
        self.fresh = start is None or not start.discriminators
        self.adversarial_start = max(
            settings.adversarial_start if self.fresh else 0.0, settings.finetune_adversarial_start if start else 0.0
        )
        self.rate = self.recipe.learning_rate * (settings.finetune_learning_rate_ratio if start else 1.0)
        # One optimiser, two groups: a step moves those that have a gradient, and the other network's is cleared first.
        groups = [{"params": list(network.parameters())} for network in (self.generator, self.discriminators)]
        self.optimizer = torch.optim.AdamW(groups, self.rate, self.recipe.betas, weight_decay=WEIGHT_DECAY)
        self.average = ExponentialAverage(self.generator, settings.ema_decay)
        self.step = 0
        self.skipped_in_a_row = 0
        self.saved_step = -1
        self.metrics: dict[str, float] = {}

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint of this moment; the one of the best (lowest) score is kept beside the last."""
        model = {f"{GENERATOR}.{name}": tensor for name, tensor in self.generator.state_dict().items()}
        model |= {f"{DISCRIMINATORS}.{name}": tensor for name, tensor in self.discriminators.state_dict().items()}
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        extra = {
            "fingerprint": self.plan.fingerprint,
            "metrics": self.metrics,
            "skipped_in_a_row": self.skipped_in_a_row,
        }
        tensors = (model, self.average.state_dict(), self.optimizer.state_dict())
        save_checkpoint(self.folder, Checkpoint(self.step, *tensors, rng, extra, score), keep_top_k=1)
        self.saved_step = self.step

    def resume(self) -> None:
        """Go on from the newest whole checkpoint of this run, if there is one.

        Raises:
            VocoderTrainingError: the checkpoints are of other settings or data.
        """
        path = newest_loadable(self.folder)
        if path is None:
            return
        saved = load_checkpoint(path)
        if saved.extra["fingerprint"] != self.plan.fingerprint:
            raise VocoderTrainingError(
                f"{path}: made with other settings or data; give another output folder, or remove this one"
            )
        for name, network in ((GENERATOR, self.generator), (DISCRIMINATORS, self.discriminators)):
            prefix = f"{name}."
            network.load_state_dict({k.removeprefix(prefix): v for k, v in saved.model.items() if k.startswith(prefix)})
        self.average.load_state_dict(saved.ema)
        self.optimizer.load_state_dict(saved.optimizer)
        torch.set_rng_state(saved.rng["cpu"])
        if "cuda" in saved.rng and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved.rng["cuda"], self.device)
        self.step = self.saved_step = saved.step
        self.skipped_in_a_row, self.metrics = saved.extra["skipped_in_a_row"], saved.extra["metrics"]
        log.info("going on from %s", path)

    def vocoder(self) -> NeuralVocoder:
        """The averaged generator as it speaks, on the device of the training."""
        # Not a deep copy: folding one would take the norm from the original, whose class the copy shares.
        speaking = build_generator(self.kind, self.variant, self.audio).to(self.device)
        speaking.load_state_dict(self.average.state_dict())
        return NeuralVocoder(self.kind, speaking, self.audio, self.settings.chunk_frames)

    def weights(self) -> VocoderWeights:
        """The averaged generator, and the discriminators if they have learned: they would pass for trained ones."""
        generator, start = build_generator(self.kind, self.variant, self.audio), self.plan.start
        generator.load_state_dict(self.average.state_dict())
        learned = not self.fresh or any(p in self.optimizer.state for p in self.discriminators.parameters())
        judges = {
            name: {key: tensor.cpu() for key, tensor in official_state(network).items()}
            for name, network in self.discriminators.items()
            if learned
        }
        return VocoderWeights(
            self.kind,
            self.variant,
            self.audio,
            (start.steps if start else 0) + self.step,
            official_state(generator),
            judges,
            f"trained here, {self.plan.fingerprint}" + (f", from {start.origin}" if start else ""),
        )


def recipe_of(settings: VocoderConfig, kind: str) -> Recipe:
    """The published recipe, with what the settings say otherwise.

    Raises:
        VocoderTrainingError: nothing is left that would compare spectra.
    """
    published = ARCHITECTURES[kind].recipe
    given = {
        "mel": settings.mel_loss_weight,
        "feature_matching": settings.feature_matching_loss_weight,
        "stft": settings.stft_loss_weight,
        "learning_rate": settings.learning_rate,
    }
    recipe = Recipe(**{**vars(published), **{name: value for name, value in given.items() if value is not None}})
    if not (recipe.mel or recipe.stft):
        raise VocoderTrainingError("vocoder.mel_loss_weight and vocoder.stft_loss_weight are both 0; set one of them")
    return recipe
