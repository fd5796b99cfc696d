"""What every pretrained speaker encoder is: a recording -> a unit vector that says who speaks, not what is said."""

from __future__ import annotations

import hashlib
import os
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

SAMPLE_RATE = 16000
"""Of the recordings that speaker encoders hear, Hz."""


class SpeakerEncoderError(MyXTTSError):
    """The pretrained weights are missing or damaged, or a recording holds no sound; the message names the cure."""


class SpeakerEncoder(nn.Module):
    """A frozen network over pieces of a recording, whose unit vectors are averaged."""

    WIDTH: ClassVar[int]
    """Values of a vector."""
    BATCH: ClassVar[int]
    """Pieces at once, always: matrix products take other paths for other batch sizes, from a size on that depends on
    the processor, and differ in the last bit. Batches with fewer pieces are padded with zeros."""

    @abstractmethod
    def pieces(self, samples: np.ndarray) -> Tensor:
        """(N,) float32 at 16 kHz -> (P, frames, bands), what the network hears of it; P is at least 1.

        Raises:
            SpeakerEncoderError: the recording is digitally silent.
        """

    @abstractmethod
    def forward(self, pieces: Tensor) -> Tensor:
        """(P, frames, bands) -> (P, WIDTH) unit vectors."""

    def embed(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Who speaks in a recording.

        Args:
            samples: (N,) in [-1, 1].
            sample_rate: Their rate in Hz; other than 16 kHz they are resampled.

        Returns:
            (WIDTH,) float32 of unit length.

        Raises:
            SpeakerEncoderError: the recording is digitally silent.
        """
        return self.embed_many([samples], sample_rate)[0]

    @torch.inference_mode()
    def embed_many(self, recordings: Sequence[np.ndarray], sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """`embed` of several recordings at once, (count, WIDTH): their pieces share the batches of the network.

        Each vector is to the bit what `embed` gives for its recording alone.
        """
        pieces = [self.pieces(resample(item, sample_rate, SAMPLE_RATE)) for item in recordings]
        vectors = torch.cat([self._embed_padded(batch) for batch in torch.cat(pieces).split(self.BATCH)])
        means = torch.stack([own.mean(0) for own in vectors.split([len(own) for own in pieces])])
        return nn.functional.normalize(means, dim=1).numpy()

    def _embed_padded(self, pieces: Tensor) -> Tensor:
        missing = self.BATCH - len(pieces)
        return self(nn.functional.pad(pieces, (0, 0, 0, 0, 0, missing)))[: len(pieces)]

    def save(self, path: Path) -> Path:
        """Write the weights beside a voice that is served where they cannot be got from elsewhere; `load` reads it."""
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        save_file(self.state_dict(), partial)
        os.replace(partial, path)
        return path


def check_sha256(path: Path, expected: str) -> None:
    """Make sure that a file of weights is the one that is meant.

    Raises:
        SpeakerEncoderError: naming both checksums.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise SpeakerEncoderError(
            f"{path}: its SHA-256 is {found}, but features.speaker_encoder_sha256 says {expected}; fetch the file "
            "again, or correct the setting if these are the weights that you mean"
        )


def silent() -> SpeakerEncoderError:
    return SpeakerEncoderError("a recording without any sound has no speaker; give one with speech")


def centroid(vectors: np.ndarray) -> np.ndarray:
    """(count, V) vectors of one speaker -> (V,) their mean direction, of unit length."""
    mean = vectors.mean(axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)
