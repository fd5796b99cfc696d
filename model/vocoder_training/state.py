"""State of a vocoder training run, its checkpoints, and its restoration from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.errors import VocoderError
from model.loop.checkpoints import Checkpoint, describe_differences, load_checkpoint, newest_loadable, save_checkpoint
from model.loop.devices import choose_device
from model.loop.ema import ExponentialAverage
from model.vocoder.architectures import ARCHITECTURES, Recipe, build_generator, refinement_iterations, variant_of
from model.vocoder.neural import NeuralVocoder
from model.vocoder.official import VocoderWeights
from model.vocoder.vocos import Vocos
from model.vocoder.weights import load_weights, official_state

log = logging.getLogger(__name__)


GENERATOR, DISCRIMINATORS = "generator", "discriminators"
"""Prefixes of tensor names in a checkpoint."""
WEIGHT_DECAY = 0.01


class VocoderTrainingError(VocoderError):
    """Training cannot start or continue; the message says why and what to change."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Settings of one vocoder training.

    Attributes:
        settings: Section `vocoder`.
        audio: Mel settings.
        steps: Number of steps.
        seed: Seed of the initial weights and of the segments.
        fingerprint: Hash of settings and data; an output folder of another fingerprint is refused.
        identity: Settings and data that were hashed, by name, for the message of that refusal.
        start: Initial weights, with or without discriminators; None trains from scratch.
    """

    settings: VocoderConfig
    audio: AudioConfig
    steps: int
    seed: int
    fingerprint: str
    identity: Mapping[str, Any]
    start: VocoderWeights | None = None


class VocoderTrainingState:
    """Both networks, their optimizer, the averaged generator and the counters of one run.

    Args:
        plan: Settings of the training.
        folder: Folder of the checkpoints.

    Attributes:
        new_discriminators: Whether the discriminators start untrained.
        adversarial_start: Share of the steps before the discriminators join.
        initial_learning_rate: Learning rate of the first step.
        step: Steps done.
        consecutive_skipped_steps: Number of steps in a row that were not finite.
        saved_step: Step of the last checkpoint.
        metrics: Metrics of the last validation.
    """

    def __init__(self, plan: TrainingPlan, folder: Path) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.folder = plan, folder
        settings, audio, start = plan.settings, plan.audio, plan.start
        self.settings, self.audio = settings, audio
        self.kind, self.variant = (start.kind, start.variant) if start else (settings.type, variant_of(settings))
        self.recipe = recipe_of(settings, self.kind, self.variant)
        self.device = choose_device(settings.device, "vocoder.device")
        self.generator = build_generator(self.kind, self.variant, audio).to(self.device)
        self.discriminators = ARCHITECTURES[self.kind].discriminators(self.variant).to(self.device)
        if settings.enable_compile:
            # The head of Vocos works on complex numbers and continues phases with NumPy, which is not compiled.
            network = self.generator.backbone if isinstance(self.generator, Vocos) else self.generator
            network.compile(dynamic=False)
        if start is not None:
            load_weights(self.generator, start.generator, start.origin)
            for name, state in start.discriminators.items():
                load_weights(self.discriminators[name], state, f"{start.origin}, {name}")
        self.new_discriminators = start is None or not start.discriminators
        self.adversarial_start = max(
            self.recipe.adversarial_start if self.new_discriminators else 0.0,
            settings.finetune_adversarial_start if start else 0.0,
        )
        ratio = settings.finetune_learning_rate_ratio if start else 1.0
        self.initial_learning_rate = self.recipe.learning_rate * ratio
        # One optimizer for both: a step updates parameters with a gradient, and the other network's is cleared first.
        groups = [{"params": list(network.parameters())} for network in (self.generator, self.discriminators)]
        self.optimizer = torch.optim.AdamW(
            groups, lr=self.initial_learning_rate, betas=self.recipe.betas, weight_decay=WEIGHT_DECAY
        )
        self.average = ExponentialAverage(self.generator, settings.ema_decay)
        self.step = 0
        self.consecutive_skipped_steps = 0
        self.saved_step = -1
        self.metrics: dict[str, float] = {}

    def save(self, score: float | None = None) -> None:
        """Writes a checkpoint of the current step; besides the last one, the one with the best score is kept.

        Args:
            score: Validation metric of this step, lower is better.
        """
        model = {f"{GENERATOR}.{name}": tensor for name, tensor in self.generator.state_dict().items()}
        model |= {f"{DISCRIMINATORS}.{name}": tensor for name, tensor in self.discriminators.state_dict().items()}
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        extra = {
            "fingerprint": self.plan.fingerprint,
            "identity": dict(self.plan.identity),
            "metrics": self.metrics,
            "consecutive_skipped_steps": self.consecutive_skipped_steps,
        }
        checkpoint = Checkpoint(
            step=self.step,
            model=model,
            ema=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            rng=rng,
            extra=extra,
            score=score,
        )
        save_checkpoint(self.folder, checkpoint, keep_top_k=1)
        self.saved_step = self.step

    def resume(self) -> None:
        """Restores the newest intact checkpoint of this run, if there is one.

        Raises:
            VocoderTrainingError: the checkpoints are of other settings or data.
        """
        path = newest_loadable(self.folder)
        if path is None:
            return
        saved = load_checkpoint(path)
        if saved.extra["fingerprint"] != self.plan.fingerprint:
            raise VocoderTrainingError(
                f"{path}: made with other settings or data: "
                f"{describe_differences(saved.extra.get('identity', {}), self.plan.identity)}; "
                "change it back, give another output folder, or remove this one"
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
        self.consecutive_skipped_steps = saved.extra["consecutive_skipped_steps"]
        self.metrics = saved.extra["metrics"]
        log.info("resuming from %s", path)

    def vocoder(self) -> NeuralVocoder:
        """Returns a vocoder with the averaged generator, on the device of the training."""
        # Not a deep copy: it would share its parametrized class with the original, and folding its weight norm would
        # unwrap the original too.
        generator = build_generator(self.kind, self.variant, self.audio).to(self.device)
        generator.load_state_dict(self.average.state_dict())
        iterations = refinement_iterations(self.kind, self.variant, self.settings)
        return NeuralVocoder(
            self.kind, generator, self.audio, self.settings.chunk_frames, refinement_iterations=iterations
        )

    def weights(self) -> VocoderWeights:
        """Returns the averaged generator, with the discriminators if any training has reached them."""
        generator, start = build_generator(self.kind, self.variant, self.audio), self.plan.start
        generator.load_state_dict(self.average.state_dict())
        learned = not self.new_discriminators or any(
            p in self.optimizer.state for p in self.discriminators.parameters()
        )
        discriminators = {
            name: {key: tensor.cpu() for key, tensor in official_state(network).items()}
            for name, network in self.discriminators.items()
            if learned
        }
        return VocoderWeights(
            kind=self.kind,
            variant=self.variant,
            audio=self.audio,
            steps=(start.steps if start else 0) + self.step,
            generator=official_state(generator),
            discriminators=discriminators,
            origin=f"trained here, {self.plan.fingerprint}" + (f", from {start.origin}" if start else ""),
        )


def recipe_of(settings: VocoderConfig, kind: str, variant: str) -> Recipe:
    """Returns the recipe of a variant, with the values that the settings override.

    Raises:
        VocoderTrainingError: all spectral losses have weight 0, or another type than Vocos has a magnitude loss.
    """
    overrides = {
        "mel": settings.mel_loss_weight,
        "feature_matching": settings.feature_matching_loss_weight,
        "stft": settings.stft_loss_weight,
        "magnitude": settings.magnitude_loss_weight,
        "learning_rate": settings.learning_rate,
        "adversarial_start": settings.adversarial_start,
    }
    chosen: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    recipe = replace(ARCHITECTURES[kind].recipe_of(variant), **chosen)
    if recipe.magnitude and kind != "vocos":
        raise VocoderTrainingError(f"vocoder.magnitude_loss_weight is for vocos; set it to 0 for {kind}")
    if not (recipe.mel or recipe.stft or recipe.magnitude):
        names = ", ".join(f"vocoder.{name}_loss_weight" for name in ("mel", "stft", "magnitude"))
        raise VocoderTrainingError(f"{names} are all 0; set one of them")
    return recipe
