"""Base class of pretrained speaker encoders, which embed the voice of a recording as a unit vector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.audio.io import resample
from model.errors import MyXTTSError
from model.files import atomic_write, sha256_of_file

SAMPLE_RATE = 16000
"""Sample rate of the encoders' input in Hz."""


class SpeakerEncoderError(MyXTTSError):
    """The pretrained weights are missing or damaged, or a recording is silent; the message names the fix."""


class SpeakerEncoder(nn.Module):
    """Frozen network that embeds windows of a recording; the embedding of the recording is their mean direction."""

    WIDTH: ClassVar[int]
    """Width of an embedding."""
    BATCH: ClassVar[int]
    """Fixed number of windows per batch, padded with zeros: matrix products of other batch sizes may differ in the last
    bit."""

    @abstractmethod
    def pieces(self, samples: np.ndarray) -> Tensor:
        """Returns the windows (P, frames, bands) of a recording (N,) float32 at 16 kHz; P is at least 1.

        Raises:
            SpeakerEncoderError: the recording is digitally silent.
        """

    @abstractmethod
    def forward(self, pieces: Tensor) -> Tensor:
        """Returns unit vectors (P, WIDTH) of windows (P, frames, bands)."""

    def embed(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Returns the speaker embedding of a recording.

        Args:
            samples: (N,) in [-1, 1].
            sample_rate: In Hz; rates other than 16 kHz are resampled.

        Returns:
            (WIDTH,) float32 of unit length.

        Raises:
            SpeakerEncoderError: the recording is digitally silent.
        """
        return self.embed_many([samples], sample_rate)[0]

    @torch.inference_mode()
    def embed_many(self, recordings: Sequence[np.ndarray], sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Returns the speaker embeddings (R, WIDTH) of R recordings, whose windows share batches.

        Each embedding equals that of `embed` to the last bit.
        """
        pieces = [self.pieces(resample(item, sample_rate, SAMPLE_RATE)) for item in recordings]
        vectors = torch.cat([self._embed_padded(batch) for batch in torch.cat(pieces).split(self.BATCH)])
        means = torch.stack([own.mean(0) for own in vectors.split([len(own) for own in pieces])])
        return nn.functional.normalize(means, dim=1).numpy()

    def _embed_padded(self, pieces: Tensor) -> Tensor:
        missing = self.BATCH - len(pieces)
        return self(nn.functional.pad(pieces, (0, 0, 0, 0, 0, missing)))[: len(pieces)]

    def save(self, path: Path) -> Path:
        """Writes the weights for `load`, so that a voice can be served where the published file is not available."""
        with atomic_write(path) as partial:
            save_file(self.state_dict(), partial)
        return path


def check_sha256(path: Path, expected: str) -> None:
    """Checks the SHA-256 of a file of weights.

    Raises:
        SpeakerEncoderError: it is not `expected`.
    """
    found = sha256_of_file(path)
    if found != expected:
        raise SpeakerEncoderError(
            f"{path}: its SHA-256 is {found}, but features.speaker_encoder_sha256 says {expected}; fetch the file "
            "again, or correct the setting if these are the intended weights"
        )


def silence_error() -> SpeakerEncoderError:
    """Returns the error for a digitally silent recording."""
    return SpeakerEncoderError("a recording without any sound has no speaker; give one with speech")


def centroid(vectors: np.ndarray) -> np.ndarray:
    """Returns the mean direction (V,) of the embeddings (R, V) of one speaker, of unit length."""
    mean = vectors.mean(axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)
