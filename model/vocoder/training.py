"""The adversarial training of a vocoder, on recorded mels or on predicted ones; one loop, resumable at every step.

What a run leaves in its folder: `checkpoints/`, `history.jsonl`, `samples/` of each validation, and at the end
`vocoder/`, the export. A step is: the discriminators learn to tell a recording from its re-synthesis, then the
generator learns to deceive them and to match the recording's spectra.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.audio.io import write_audio
from model.config.schema import AudioConfig, VocoderConfig
from model.threads import default_threads, interruptible
from model.training.checkpoint import Checkpoint, load_checkpoint, newest_loadable, save_checkpoint
from model.training.devices import bfloat16_pays, choose_device
from model.training.logging import NullLogger, RunLogger
from model.training.optimization import ExponentialAverage
from model.vocoder.architectures import ARCHITECTURES, Recipe, build_generator, variant_of
from model.vocoder.discriminators import judge, judge_pair
from model.vocoder.errors import VocoderError
from model.vocoder.folder import write_vocoder
from model.vocoder.losses import (
    FullBandMel,
    MultiResolutionStft,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from model.vocoder.measures import PRIMARY, measure
from model.vocoder.neural import NeuralVocoder
from model.vocoder.official import VocoderWeights
from model.vocoder.pairs import Pair, Segments
from model.vocoder.weights import load_weights, official_state

log = logging.getLogger(__name__)

GENERATOR, DISCRIMINATORS = "generator", "discriminators"
MAX_SKIPPED = 20
"""Training stops with a report after this many non-finite steps in a row."""
VALIDATION_CLIPS = 8
SAMPLES = 2
"""Clips that each validation writes as sound."""
LOG_INTERVAL = 20
WEIGHT_DECAY = 0.01


class VocoderTrainingError(VocoderError):
    """Training cannot start or go on; the message says why and what to change."""


@dataclass
class VocoderTraining:
    """How a run ended: the exported folder, steps done, the measures of the last validation."""

    vocoder: Path
    steps: int
    metrics: dict[str, float]


@dataclass
class _State:
    step: int = 0
    skipped_in_a_row: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


def train_vocoder(
    settings: VocoderConfig,
    audio: AudioConfig,
    training: list[Pair],
    held_out: list[Pair],
    steps: int,
    output: Path,
    fingerprint: str,
    seed: int,
    start: VocoderWeights | None = None,
    logger: RunLogger | None = None,
) -> VocoderTraining:
    """Train or fine-tune a vocoder, or go on where an interrupted run of the same fingerprint stopped.

    Args:
        settings: Section `vocoder`.
        audio: Mel settings.
        training, held_out: Clips with the mels that the vocoder will be given.
        steps: Steps to do in all.
        output: Folder of this run; a finished run in it is returned at once.
        fingerprint: Tells settings and data; a folder of another one is refused.
        seed: Of initial weights and of the segments.
        start: Weights to go on from; those of discriminators are taken along where they are there.
        logger: Receives metrics and audio.

    Raises:
        VocoderTrainingError: the folder belongs to another run, or too many steps in a row were not finite.
        PairingError: no clip is as long as a segment.
        KeyboardInterrupt: after an interrupt, once the running step is saved.
    """
    run = _Run(settings, audio, training, held_out, steps, output, fingerprint, seed, start, logger or NullLogger())
    return run.run()


class _Run:
    """The parts of one run; `run` is the loop."""

    def __init__(self, settings, audio, training, held_out, steps, output, fingerprint, seed, start, logger) -> None:
        torch.set_num_threads(default_threads())
        torch.manual_seed(seed)
        self.settings, self.audio, self.steps, self.output = settings, audio, steps, output
        self.fingerprint, self.logger, self.start = fingerprint, logger, start
        self.kind, self.variant = (start.kind, start.variant) if start else (settings.type, variant_of(settings))
        self.recipe = recipe_of(settings, self.kind)
        self.device = choose_device(settings.device, "vocoder.device")
        self.generator = build_generator(self.kind, self.variant, audio).to(self.device)
        self.discriminators = ARCHITECTURES[self.kind].discriminators(self.variant).to(self.device)
        if settings.enable_compile:
            self.generator.compile(dynamic=False)
        self.rate = self.recipe.learning_rate * (settings.finetune_learning_rate_ratio if start else 1.0)
        self.fresh = start is None or not start.discriminators
        if start is not None:
            load_weights(self.generator, start.generator, start.origin)
            for name, state in start.discriminators.items():
                load_weights(self.discriminators[name], state, f"{start.origin}, {name}")
        # One optimiser, two groups: a step moves those that have a gradient, and the other network's is cleared first.
        networks = (self.generator, self.discriminators)
        groups = [{"params": list(network.parameters())} for network in networks]
        self.optimizer = torch.optim.AdamW(groups, self.rate, self.recipe.betas, weight_decay=WEIGHT_DECAY)
        self.average = ExponentialAverage(self.generator, settings.ema_decay)
        self.segments = Segments(training, settings.segment_frames, settings.batch_size, seed)
        self.held_out = sorted(held_out, key=lambda pair: pair.id)[:VALIDATION_CLIPS]
        if not self.held_out:
            raise VocoderTrainingError("no held-out clips to validate on; lower split.min_held_out or add recordings")
        self.mel, self.stft = FullBandMel(audio).to(self.device), MultiResolutionStft().to(self.device)
        mixed = settings.use_mixed_precision and bfloat16_pays(self.device)
        self.precision = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=mixed)
        self.checkpoints = output / "checkpoints"
        self.state = _State()
        self._resume()

    def run(self) -> VocoderTraining:
        state, settings = self.state, self.settings
        self.output.mkdir(parents=True, exist_ok=True)
        log.info(
            "%s %s: %.2f M parameters, discriminators %.2f M, %d clips, steps %d to %d",
            self.kind,
            self.variant,
            _millions(self.generator),
            _millions(self.discriminators),
            len(self.segments.pairs),
            state.step,
            self.steps,
        )
        bar = tqdm(total=self.steps, initial=state.step, unit="step", disable=None, mininterval=1.0)
        history_file = (self.output / "history.jsonl").open("a", encoding="utf-8")
        with interruptible() as interrupted, history_file as history, bar:
            began = time.monotonic()
            while state.step < self.steps:
                terms = self.step(*self.segments.batch(state.step))
                if terms is None:
                    self._skip()
                else:
                    state.skipped_in_a_row = 0
                    self.average.update(self.generator, state.step)
                state.step += 1
                bar.update()
                if terms is not None and state.step % LOG_INTERVAL == 0:
                    seconds = (time.monotonic() - began) / LOG_INTERVAL
                    self._report(history, {f"train/{name}": value for name, value in terms.items()}, seconds)
                    began = time.monotonic()
                if state.step % settings.evaluation_interval == 0 or state.step == self.steps:
                    state.metrics = self._validate(history)
                    self._save(state.metrics[f"validation/{PRIMARY}"])
                    began = time.monotonic()
                elif state.step % settings.checkpoint_interval == 0:
                    self._save()
                if interrupted.is_set():
                    if not self.checkpoints.joinpath(f"step-{state.step:08d}").exists():
                        self._save()
                    raise KeyboardInterrupt
        return self._export()

    def step(self, mel: Tensor, recorded: Tensor) -> dict[str, float] | None:
        """One step on a batch of segments; the unweighted terms, or None where they were not finite."""
        settings, recipe = self.settings, self.recipe
        mel, recorded = mel.to(self.device), recorded.to(self.device)
        rate = self.rate * settings.final_learning_rate_ratio ** (self.state.step / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        adversarial = not self.fresh or self.state.step >= settings.adversarial_start * self.steps
        terms: dict[str, Tensor] = {}
        with self.precision():
            generated = self.generator(mel).float()
        if adversarial and (self.fresh or self.state.step >= settings.discriminator_freeze_steps):
            with self.precision():
                real, fake = judge_pair(self.discriminators, recorded, generated.detach())
            terms["discriminator"] = discriminator_loss(_float(real), _float(fake), recipe.average_heads)
            if not self._descend(terms["discriminator"], self.discriminators):
                return None
        loss = generated.new_zeros(())
        if recipe.mel:
            terms["mel"] = nn.functional.l1_loss(self.mel(generated), self.mel(recorded))
            loss = loss + recipe.mel * terms["mel"]
        if recipe.stft:
            terms["stft"] = torch.stack(self.stft(generated, recorded)).sum()
            loss = loss + recipe.stft * terms["stft"]
        if adversarial:
            self.discriminators.requires_grad_(False)
            with self.precision():
                fake = judge(self.discriminators, generated)
                real = _recorded(self.discriminators, recorded) if recipe.feature_matching else []
            self.discriminators.requires_grad_(True)
            terms["adversarial"] = adversarial_loss(_float(fake), recipe.average_heads)
            loss = loss + terms["adversarial"]
            if recipe.feature_matching:
                terms["feature_matching"] = feature_matching_loss(_float(real), _float(fake))
                loss = loss + recipe.feature_matching * terms["feature_matching"]
        if not self._descend(loss, self.generator):
            return None
        return {name: float(term.detach()) for name, term in terms.items()} | {"learning_rate": rate}

    def _descend(self, loss: Tensor, network: nn.Module) -> bool:
        """Backward and step of one network; False, and nothing moved, where the loss or gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = self.settings.gradient_clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
        if not torch.isfinite(norm) or not torch.isfinite(loss):
            return False
        self.optimizer.step()
        return True

    def _validate(self, history) -> dict[str, float]:
        vocoder = self._vocoder()
        metrics = measure(vocoder, self.held_out, self.audio)
        values = {f"validation/{name}": value for name, value in metrics.items()}
        for pair in self.held_out[:SAMPLES]:
            file = self.output / "samples" / f"{pair.id}-{self.state.step:08d}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_audio(file, np.clip(vocoder(pair.mel), -1.0, 1.0), self.audio.sample_rate)
            self.logger.artifact(file, "vocoder-samples")
        self._report(history, values)
        log.info("step %d of %d: %s", self.state.step, self.steps, _shown(metrics))
        return values

    def _vocoder(self) -> NeuralVocoder:
        """The averaged generator as it speaks."""
        # Not a deep copy: folding one would take the norm from the original, whose class the copy shares.
        speaking = build_generator(self.kind, self.variant, self.audio)
        speaking.load_state_dict(self.average.state_dict())
        return NeuralVocoder(self.kind, speaking, self.audio, self.settings.chunk_frames)

    def _report(self, history, values: dict[str, float], seconds: float = 0.0) -> None:
        if seconds:
            values = {**values, "train/seconds_per_step": seconds}
        history.write(json.dumps({"step": self.state.step, **values}) + "\n")
        history.flush()
        self.logger.metrics(self.state.step, values)

    def _skip(self) -> None:
        self.state.skipped_in_a_row += 1
        log.warning("step %d skipped: loss or gradient is not finite", self.state.step)
        if self.state.skipped_in_a_row >= MAX_SKIPPED:
            raise VocoderTrainingError(
                f"{MAX_SKIPPED} steps in a row were not finite; lower vocoder.learning_rate, set "
                "vocoder.gradient_clip_norm, or look at the clips"
            )

    def _save(self, score: float | None = None) -> None:
        model = {f"{GENERATOR}.{name}": tensor for name, tensor in self.generator.state_dict().items()}
        model |= {f"{DISCRIMINATORS}.{name}": tensor for name, tensor in self.discriminators.state_dict().items()}
        state = self.state
        extra = {"fingerprint": self.fingerprint, "metrics": state.metrics, "skipped_in_a_row": state.skipped_in_a_row}
        optimizer = self.optimizer.state_dict()
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        saved = Checkpoint(state.step, model, self.average.state_dict(), optimizer, rng, extra, score)
        save_checkpoint(self.checkpoints, saved, keep_top_k=1)

    def _resume(self) -> None:
        path = newest_loadable(self.checkpoints)
        if path is None:
            return
        saved = load_checkpoint(path)
        if saved.extra["fingerprint"] != self.fingerprint:
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
        self.state = _State(saved.step, saved.extra["skipped_in_a_row"], saved.extra["metrics"])
        log.info("going on from %s", path)

    def _export(self) -> VocoderTraining:
        self.generator.load_state_dict(self.average.state_dict())
        self.generator.cpu()
        self.discriminators.cpu()
        before = self.start.steps if self.start else 0
        weights = VocoderWeights(
            self.kind,
            self.variant,
            self.audio,
            before + self.state.step,
            official_state(self.generator),
            {name: official_state(network) for name, network in self.discriminators.items()},
            f"trained here, {self.fingerprint}" + (f", from {self.start.origin}" if self.start else ""),
        )
        return VocoderTraining(
            write_vocoder(self.output / "vocoder", weights), self.state.step, dict(self.state.metrics)
        )


def recipe_of(settings: VocoderConfig, kind: str) -> Recipe:
    """The published recipe, with what the settings say otherwise."""
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


def _recorded(discriminators: nn.ModuleDict, recorded: Tensor) -> list:
    with torch.no_grad():
        return judge(discriminators, recorded)


def _float(judgements: list) -> list:
    return [(score.float(), [feature.float() for feature in features]) for score, features in judgements]


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
