"""Cache of token durations: computed once the alignment has converged, after which the aligner is frozen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel
from model.features.store import FeatureStore

log = logging.getLogger(__name__)

CONVERGED = 0.35
"""Running mean of the binarization term, nats per frame, below which the soft alignment equals the hard one."""
EMA_DECAY = 0.95
"""Decay per step of the running mean of the binarization loss."""


class DurationCache:
    """Adds cached durations to batches from `loss.binarization_end` on, as soon as the alignment has converged.

    The modules that durations depend on (aligner and token embeddings) are frozen from then on, so that alignments of
    recordings stay correct, and so that a resumed run computes the same durations again.

    Args:
        model: Model in training.
        store: Its features.
        mode: `learned` never caches durations.
        earliest: Share of training before which none are cached.

    Attributes:
        mean: Running mean of the binarization term, nats per frame.
        durations: Clip -> (T,) frames per token; empty until they are cached.
    """

    def __init__(
        self, model: AcousticModel, store: FeatureStore, *, mode: Literal["learned", "cached"], earliest: float
    ) -> None:
        self.model, self.store, self.mode, self.earliest = model, store, mode, earliest
        self.mean = 1.0
        self.durations: dict[str, Tensor] = {}
        self._frozen: list[torch.nn.Parameter] = []

    @property
    def is_filled(self) -> bool:
        """Whether the durations are cached, and the modules that they depend on frozen."""
        return bool(self.durations)

    def update(self, terms: Mapping[str, float], progress: float) -> None:
        """Records the loss terms of a good step, and caches the durations once the alignment has converged.

        Args:
            terms: Unweighted loss terms.
            progress: Share of training done, 0 to 1.
        """
        if self.mode == "learned" or self.is_filled:
            return
        self.mean = EMA_DECAY * self.mean + (1 - EMA_DECAY) * terms["binarization"]
        if progress >= self.earliest and self.mean < CONVERGED:
            self._cache()

    def add_to(self, batch: Batch) -> Batch:
        """Returns the batch with its durations once they are cached, and the batch itself before."""
        if not self.is_filled:
            return batch
        durations = torch.zeros(batch.ids.shape[:2], dtype=torch.int64)
        for row, clip in zip(durations, batch.clip_ids, strict=True):
            row[: len(self.durations[clip])] = self.durations[clip]
        return replace(batch, durations=durations.to(batch.ids.device))

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "cached": self.is_filled}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state of a run whose model weights are loaded already."""
        self.mean = state["mean"]
        self.durations = {}
        self._unfreeze()
        if state["cached"]:
            self._cache()

    @torch.no_grad()
    def _cache(self) -> None:
        """Aligns every training clip and freezes the aligner."""
        training = self.model.training
        self.model.eval()
        device = self.model.symbol_embedding.weight.device
        for position in self.store.split("train"):
            clip = self.store.clip(position)
            ids, mel = torch.from_numpy(clip.ids)[None], torch.tensor(clip.mel)[None]
            tokens, frames = torch.tensor([ids.shape[1]]), torch.tensor([mel.shape[1]])
            alignment = self.model.align(ids.to(device), tokens.to(device), mel.to(device), frames.to(device))
            self.durations[clip.id] = alignment.durations[0].cpu()
        self.model.train(training)
        self._freeze()
        log.info(
            "alignment converged (%.2f nats per frame): durations of %d clips cached", self.mean, len(self.durations)
        )

    def _freeze(self) -> None:
        modules = (self.model.aligner, self.model.symbol_embedding, self.model.stress_embedding)
        parameters = [parameter for module in modules for parameter in module.parameters()]
        self._frozen = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)

    def _unfreeze(self) -> None:
        """Unfreezes what this cache froze; parts of `training.freeze` stay frozen."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []
