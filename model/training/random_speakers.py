"""Random speakers in training, so that a voice can clone speakers that its corpus lacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.acoustic.batch import Batch

FILE = Path(__file__).with_name("speaker_distribution.npz")
"""Distribution of the embeddings of LibriSpeech's readers, made by `python -m benchmarks.cloning --fit`."""


@dataclass(frozen=True)
class SpeakerDistribution:
    """Normal distribution of Resemblyzer's speaker embeddings.

    Attributes:
        mean: (V,) mean embedding.
        directions: (K, V) principal directions, as long as the standard deviation along them.
    """

    mean: Tensor
    directions: Tensor

    @classmethod
    def fit(cls, vectors: np.ndarray) -> SpeakerDistribution:
        """Fits the distribution to unit vectors (N, V), one of each speaker."""
        mean = vectors.mean(0)
        _, sizes, directions = np.linalg.svd(vectors - mean, full_matrices=False)
        scaled = sizes[:-1, None] * directions[:-1] / (len(vectors) - 1) ** 0.5  # N - 1 directions vary
        return cls(torch.from_numpy(mean), torch.from_numpy(scaled))

    @classmethod
    def load(cls, path: Path = FILE) -> SpeakerDistribution:
        """Reads the file of `save`."""
        with np.load(path) as arrays:
            return cls(*(torch.from_numpy(arrays[name].astype(np.float32)) for name in ("mean", "directions")))

    def save(self, path: Path) -> None:
        """Writes mean and directions as a file of numpy."""
        np.savez_compressed(
            path, mean=self.mean.numpy().astype(np.float16), directions=self.directions.numpy().astype(np.float16)
        )

    def draw(self, count: int) -> Tensor:
        """Returns random unit vectors (count, V).

        Embeddings by Resemblyzer have no negative elements. Setting those here to zero would make the drawn speakers
        resemble each other more than real ones do.
        """
        return F.normalize(self.mean + torch.randn(count, len(self.directions)) @ self.directions, dim=1)


@dataclass(frozen=True)
class RandomSpeakers:
    """Replaces the speakers of a share of each batch by random ones.

    Attributes:
        share: Share of the clips.
        distribution: Distribution of the speaker embeddings.
    """

    share: float
    distribution: SpeakerDistribution

    def apply_to(self, batch: Batch) -> Batch:
        """Returns the batch with the speaker vectors of random clips replaced; at least one keeps its own."""
        clips = len(batch.clip_ids)
        count = min(round(self.share * clips), clips - 1)
        if count == 0:
            return batch
        chosen = torch.randperm(clips)[:count]
        replaced, vectors = torch.zeros(clips, dtype=torch.bool), batch.speaker_vector.clone()
        replaced[chosen] = True
        vectors[chosen] = self.distribution.draw(count)
        return replace(batch, speaker_vector=vectors, random_speaker=replaced)
