"""Whether style tokens and latent are used at all: without a count, a style that has died out goes unnoticed."""

from __future__ import annotations

import torch
from torch import Tensor

from model.acoustic.conditioning import Conditions
from model.acoustic.style import divergence

ACTIVE = 0.01
"""Variance of a latent dimension's mean over clips above which it says something (arXiv:1509.00519)."""


class StyleUse:
    """Gathers the conditions of validation clips."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.means: list[Tensor] = []
        self.divergences: list[Tensor] = []

    def add(self, conditions: Conditions) -> None:
        if conditions.token_weights is not None:
            self.weights.append(conditions.token_weights.mean(1))  # over heads: (B, tokens)
        if conditions.posterior is not None:
            self.means.append(conditions.posterior.mean)
            self.divergences.append(divergence(conditions.posterior, conditions.prior))

    def measures(self) -> dict[str, float]:
        """Names without prefix -> values; empty without style.

        `style_tokens_used`: exponential of the entropy of the mean weights, 1 (one token alone) to their number.
        `style_token_<i>`: mean weight. `style_variation`: deviation of a weight over clips, 0 when every clip sounds
        alike. `active_units`: latent dimensions in use. `kl_dimension_<i>`: nats.
        """
        values = {}
        if self.weights:
            weights = torch.cat(self.weights)
            mean = weights.mean(0)
            values["style_tokens_used"] = float((-(mean * mean.clamp(min=1e-9).log()).sum()).exp())
            values["style_variation"] = float(weights.std(0, correction=0).mean())
            values |= {f"style_token_{i:02d}": float(value) for i, value in enumerate(mean)}
        if self.means:
            values["active_units"] = float((torch.cat(self.means).var(0, correction=0) > ACTIVE).sum())
            each = torch.cat(self.divergences).mean(0)
            values |= {f"kl_dimension_{i:02d}": float(value) for i, value in enumerate(each)}
        return values
