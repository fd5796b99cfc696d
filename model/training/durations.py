"""Durations that need not be learned any more: kept once the alignment has converged, and the aligner rests."""

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
"""Nats per frame of the binarisation term, on average of late, below which the soft alignment is the hard one."""
MEMORY = 0.95
"""Share of the running average that a step keeps."""


class DurationCache:
    """Gives batches their durations from `loss.binarization_end` on, as soon as the alignment has converged.

    What the durations rest on (aligner and token embeddings) is frozen from then on, so that alignments of recordings
    stay right, and so that a resumed run finds the same durations again.

    Args:
        model: In training.
        store: Its features.
        mode: `learned` never keeps durations.
        earliest: Share of training before which none are kept.
    """

    def __init__(
        self, model: AcousticModel, store: FeatureStore, mode: Literal["learned", "cached"], earliest: float
    ) -> None:
        self.model, self.store, self.mode, self.earliest = model, store, mode, earliest
        self.average = 1.0
        self.kept: dict[str, Tensor] = {}

    def observe(self, terms: Mapping[str, float], progress: float) -> None:
        """After a good step with these terms, at this share of training: keep the durations if it is time."""
        if self.mode == "learned" or self.kept:
            return
        self.average = MEMORY * self.average + (1 - MEMORY) * terms["binarization"]
        if progress >= self.earliest and self.average < CONVERGED:
            self._keep()

    def attach(self, batch: Batch) -> Batch:
        """The batch with its durations, once they are kept; before, as it is."""
        if not self.kept:
            return batch
        durations = torch.zeros(batch.ids.shape[:2], dtype=torch.int64)
        for row, clip in zip(durations, batch.clip_ids, strict=True):
            row[: len(self.kept[clip])] = self.kept[clip]
        return replace(batch, durations=durations.to(batch.ids.device))

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "kept": bool(self.kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a cache of the same run was; the model's weights are loaded already."""
        self.average = state["average"]
        self.kept = {}
        self._rest(False)
        if state["kept"]:
            self._keep()

    @torch.no_grad()
    def _keep(self) -> None:
        training = self.model.training
        self.model.eval()
        for position in self.store.split("train"):
            clip = self.store.clip(position)
            ids, mel = torch.from_numpy(clip.ids)[None], torch.tensor(clip.mel)[None]
            device = self.model.symbol_embedding.weight.device
            lengths = (torch.tensor([ids.shape[1]]), torch.tensor([mel.shape[1]]))
            alignment = self.model.align(ids.to(device), lengths[0].to(device), mel.to(device), lengths[1].to(device))
            self.kept[clip.id] = alignment.durations[0].cpu()
        self.model.train(training)
        self._rest(True)
        log.info("alignment converged (%.2f nats per frame): durations of %d clips kept", self.average, len(self.kept))

    def _rest(self, resting: bool) -> None:
        for part in (self.model.aligner, self.model.symbol_embedding, self.model.stress_embedding):
            part.requires_grad_(not resting)
