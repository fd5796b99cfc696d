"""One adversarial step: the discriminators learn to tell a recording from its re-synthesis, then the generator learns
to deceive them and to match the recording's spectra."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from model.training.devices import bfloat16_pays
from model.vocoder.discriminators import Judgement, judge, judge_pair
from model.vocoder.losses import (
    FullBandMel,
    MultiResolutionStft,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from model.vocoder.run_state import RunState


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
