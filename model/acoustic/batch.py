"""The padded batch that the acoustic model reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.audio import SILENCE

REFERENCE_FRAMES = 256
"""Frames (3 s) of a reference clip: enough for voice and style, and the same for every batch."""


@dataclass(kw_only=True)
class Batch:
    """B clips, padded to the longest. Padding is identified by the lengths alone, never by values.

    Attributes:
        ids: (B, T, 2) int64 symbol and stress; 0 in the padding.
        token_lengths: (B,) int64.
        mel: (B, S, M) float32 unnormalized log-mel; silence, log(1e-5), in the padding.
        mel_lengths: (B,) int64.
        pitch: (B, S) float32 log F0, standardized per speaker; 0 where unvoiced and in the padding.
        voiced: (B, S) bool; False in the padding.
        energy: (B, S) float32 log energy, standardized over the corpus; 0 in the padding.
        speaker_vector: (B, V) float32 of unit length. In training it is that of another clip of the speaker, if any.
        speaker, language: (B,) int64 indices into the store's lists.
        clip_ids: B clip ids.
        reference_mel: (B, REFERENCE_FRAMES, M) float32 unnormalized log-mel of another clip of each speaker; silence
            in the padding.
        reference_lengths: (B,) int64 frames of the reference; 0 for a speaker's only clip, which has no reference.
        reference_clip: (B,) int64 store position of the clip that speaker vector and reference come from.
        durations: (B, T) int64 frames per token if they are known; None lets the aligner compute them.
    """

    ids: Tensor
    token_lengths: Tensor
    mel: Tensor
    mel_lengths: Tensor
    pitch: Tensor
    voiced: Tensor
    energy: Tensor
    speaker_vector: Tensor
    speaker: Tensor
    language: Tensor
    clip_ids: list[str]
    reference_mel: Tensor
    reference_lengths: Tensor
    reference_clip: Tensor
    durations: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch with all tensors on `device`."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Returns the batch in page-locked memory, from which a GPU copies asynchronously."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        mapped: dict[str, Any] = {name: function(value) for name, value in values.items() if torch.is_tensor(value)}
        return replace(self, **mapped)


def pad_reference(mel: np.ndarray) -> np.ndarray:
    """Pads a mel (R, M) of at most `REFERENCE_FRAMES` frames to exactly that many with silence."""
    padded = np.full((REFERENCE_FRAMES, mel.shape[1]), SILENCE, dtype=np.float32)
    padded[: len(mel)] = mel
    return padded
