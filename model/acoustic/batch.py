"""The padded batch that the acoustic model reads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from model.audio import SILENCE

REFERENCE_FRAMES = 256
"""Frames (3 s) of a reference: enough for voice and style, and the same for every batch."""


@dataclass
class Batch:
    """B clips, padded to the longest. Only the lengths tell padding from content.

    Attributes:
        ids: (B, T, 2) int64 symbol and stress; 0 in the padding.
        token_lengths: (B,) int64.
        mel: (B, S, M) float32 raw log-mel; silence, log(1e-5), in the padding.
        mel_lengths: (B,) int64.
        pitch: (B, S) float32 log F0 in deviations from the speaker's mean; 0 where unvoiced and in the padding.
        voiced: (B, S) bool; False in the padding.
        energy: (B, S) float32 log energy in deviations from the mean; 0 in the padding.
        speaker_vector: (B, V) float32, unit length; never the clip's own in training, where there is another.
        speaker, language: (B,) int64 positions in the store's lists.
        clip_ids: B names.
        reference_mel: (B, REFERENCE_FRAMES, M) float32 raw log-mel of another clip of each speaker; silence in the
            padding.
        reference_lengths: (B,) int64 frames of it; 0 for the sole clip of a speaker, which has no other.
        reference_clip: (B,) int64 position of the clip that lends speaker vector and reference.
        durations: (B, T) int64 frames per token where they are known already; None leaves them to the aligner.
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
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device, non_blocking=True) for name, value in tensors.items() if torch.is_tensor(value)}
        return replace(self, **moved)

    def pinned(self) -> Batch:
        """The batch in memory that a GPU copies from by itself, while the CPU goes on."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.pin_memory() for name, value in tensors.items() if torch.is_tensor(value)})


def pad_reference(mel: np.ndarray) -> np.ndarray:
    """Up to `REFERENCE_FRAMES` frames (R, M) -> exactly so many, with silence after the end."""
    padded = np.full((REFERENCE_FRAMES, mel.shape[1]), SILENCE, dtype=np.float32)
    padded[: len(mel)] = mel
    return padded
