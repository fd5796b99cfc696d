"""Losses of a vocoder and one adversarial training step."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.loop.devices import bfloat16_pays
from model.vocoder.discriminators import Judgement, judge, judge_pair
from model.vocoder_training.state import RunState

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""(n_fft, hop, window) of the multi-resolution STFT loss, as published."""


FLOOR = 1e-7
"""Power below which a spectrogram bin counts as silent: keeps logarithm and gradient finite."""


def discriminator_loss(real: list[Judgement], fake: list[Judgement], average: bool = False) -> Tensor:
    """Recordings should score 1, generated speech 0 (arXiv:1611.04076).

    Args:
        real, fake: Judgements of the same heads.
        average: Over the heads (UnivNet) instead of their sum (HiFi-GAN).
    """
    terms = [(1 - r).square().mean() + f.square().mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    total = torch.stack(terms).sum()
    return total / len(terms) if average else total


def adversarial_loss(fake: list[Judgement], average: bool = False) -> Tensor:
    """Generated speech should score 1."""
    total = torch.stack([(1 - score).square().mean() for score, _ in fake]).sum()
    return total / len(fake) if average else total


def feature_matching_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Sum over all layers of the mean absolute difference of activations (arXiv:1910.06711)."""
    return torch.stack(
        [
            F.l1_loss(f, r.detach())
            for (_, theirs), (_, ours) in zip(real, fake, strict=True)
            for r, f in zip(theirs, ours, strict=True)
        ]
    ).sum()


class FullBandMel(nn.Module):
    """Log-mel up to half the sample rate: what the mel loss compares, though the generator reads only up to `fmax`."""

    def __init__(self, audio: AudioConfig) -> None:
        super().__init__()
        self.extractor = MelExtractor(audio.model_copy(update={"fmax": audio.sample_rate / 2}))

    def forward(self, samples: Tensor) -> Tensor:
        """(B, 1, N) -> (B, M, S)."""
        return self.extractor(samples[:, 0])


class MultiResolutionStft(nn.Module):
    """Spectral convergence and log-magnitude distance, averaged over resolutions (arXiv:1910.11480)."""

    def __init__(self, resolutions: tuple[tuple[int, int, int], ...] = RESOLUTIONS) -> None:
        super().__init__()
        self.resolutions = resolutions
        for index, (_, _, window) in enumerate(resolutions):
            self.register_buffer(f"window_{index}", torch.hann_window(window), persistent=False)

    def forward(self, generated: Tensor, recorded: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, N) twice -> spectral convergence (relative, 0 is equal) and log-magnitude L1 (nepers)."""
        convergence, distance = [], []
        for index in range(len(self.resolutions)):
            ours, theirs = self._magnitudes(generated, index), self._magnitudes(recorded, index)
            convergence.append(torch.linalg.vector_norm(theirs - ours) / torch.linalg.vector_norm(theirs))
            distance.append(F.l1_loss(ours.log(), theirs.log()))
        return torch.stack(convergence).mean(), torch.stack(distance).mean()

    def _magnitudes(self, samples: Tensor, index: int) -> Tensor:
        n_fft, hop, window = self.resolutions[index]
        with torch.autocast(samples.device.type, enabled=False):
            spectrum = torch.stft(
                samples[:, 0].float(), n_fft, hop, window, getattr(self, f"window_{index}"), return_complex=True
            )
            return torch.view_as_real(spectrum).square().sum(-1).clamp(min=FLOOR).sqrt()


class AdversarialStep:
    """Moves the networks of a run by one batch.

    Args:
        state: Of the run; its step is counted by the caller. The rate falls, and new discriminators join, by the share
            of the planned steps that are done.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.mel = FullBandMel(state.audio).to(state.device)
        self.stft = MultiResolutionStft().to(state.device)
        mixed = state.settings.use_mixed_precision and bfloat16_pays(state.device)
        self.precision = partial(torch.autocast, state.device.type, torch.bfloat16, enabled=mixed)

    def __call__(self, mel: Tensor, recorded: Tensor) -> dict[str, float] | None:
        """Train on mel (B, M, S) and samples (B, 1, S * hop); the unweighted terms, or None where they were not finite.

        A step that is not finite moves no generator.
        """
        state, settings = self.state, self.state.settings
        mel, recorded = mel.to(state.device), recorded.to(state.device)
        rate = state.rate * settings.final_learning_rate_ratio ** (state.step / state.plan.steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        adversarial = state.step >= state.adversarial_start * state.plan.steps
        frozen = not state.fresh and state.step < settings.discriminator_freeze_steps
        with self.precision():
            generated = state.generator(mel).float()
        terms: dict[str, Tensor] = {}
        if adversarial and not frozen:
            terms["discriminator"] = self._discriminator_loss(generated.detach(), recorded)
            if not self.descend(terms["discriminator"], state.discriminators):
                return None
        compared = self._generator_terms(generated, recorded, adversarial)
        weights = {**vars(state.recipe), "adversarial": 1.0}
        loss = sum(weights[name] * term for name, term in compared.items())
        if not self.descend(loss, state.generator):
            return None
        return {name: float(term.detach()) for name, term in (terms | compared).items()} | {"learning_rate": rate}

    def descend(self, loss: Tensor, network: nn.Module) -> bool:
        """Backward and step of one network; False, and nothing moved, where the loss or gradient is not finite."""
        optimizer = self.state.optimizer
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = self.state.settings.gradient_clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
        if not torch.isfinite(norm) or not torch.isfinite(loss):
            return False
        optimizer.step()
        return True

    def _discriminator_loss(self, generated: Tensor, recorded: Tensor) -> Tensor:
        with self.precision():
            real, fake = judge_pair(self.state.discriminators, recorded, generated)
        return discriminator_loss(_float(real), _float(fake), self.state.recipe.average_heads)

    def _generator_terms(self, generated: Tensor, recorded: Tensor, adversarial: bool) -> dict[str, Tensor]:
        recipe, discriminators = self.state.recipe, self.state.discriminators
        terms = {}
        if recipe.mel:
            terms["mel"] = nn.functional.l1_loss(self.mel(generated), self.mel(recorded))
        if recipe.stft:
            terms["stft"] = torch.stack(self.stft(generated, recorded)).sum()
        if not adversarial:
            return terms
        discriminators.requires_grad_(False)
        with self.precision():
            fake = judge(discriminators, generated)
            real = self._judge(recorded) if recipe.feature_matching else []
        discriminators.requires_grad_(True)
        terms["adversarial"] = adversarial_loss(_float(fake), recipe.average_heads)
        if recipe.feature_matching:
            terms["feature_matching"] = feature_matching_loss(_float(real), _float(fake))
        return terms

    @torch.no_grad()
    def _judge(self, recorded: Tensor) -> list[Judgement]:
        return judge(self.state.discriminators, recorded)


def _float(judgements: list[Judgement]) -> list[Judgement]:
    return [(score.float(), [feature.float() for feature in features]) for score, features in judgements]
