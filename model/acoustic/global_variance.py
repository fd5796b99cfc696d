"""Global variance: how far a clip's mel strays from its mean, which predictions lose, and how it is given back.

A model that predicts what is likely predicts averages: its mels are smoother than recordings, and sound muffled. Their
spread in each band is scaled back to that of recordings (Silen et al., "Ways to Implement Global Variance in
Statistical Speech Synthesis", Interspeech 2012).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel
from model.audio import SILENCE

LARGEST = 2.0
"""Factor past which a band holds too little of the recording to be worth raising."""


@torch.no_grad()
def lost_variance(model: AcousticModel, batches: Iterable[Batch]) -> np.ndarray:
    """(M,) standard deviation of recordings over that of what the model makes of their texts, mean over clips.

    Within 1 and `LARGEST`; 1 where there are no clips to measure.
    """
    model.eval()
    device = next(model.parameters()).device
    recorded, spoken = np.zeros(model.dimensions.n_mels), np.zeros(model.dimensions.n_mels)
    for batch in batches:
        speech = model.synthesize_batch(batch.to(device))
        for index in range(len(batch.clip_ids)):
            recorded += batch.mel[index, : batch.mel_lengths[index]].std(0, correction=0).numpy()
            spoken += speech.mel[index, : speech.mel_lengths[index]].std(0, correction=0).cpu().numpy()
    return np.clip(recorded / np.maximum(spoken, 1e-6), 1.0, LARGEST) if recorded.any() else np.ones_like(recorded)


def give_back_variance(mel: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Log-mel (S, M) with its distance from each band's mean over the clip times `factors` (M,)."""
    mean = mel.mean(0, keepdims=True)
    return np.maximum(mean + (mel - mean) * factors, SILENCE).astype(np.float32)
