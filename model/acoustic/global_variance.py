"""Global variance: estimates and restores the spread of mel bins that predictions lose.

A model trained to predict likely mels predicts averages, which are smoother than recordings and sound muffled. The
spread of each mel bin over a clip is scaled back to that of recordings (Silen et al., "Ways to Implement Global
Variance in Statistical Speech Synthesis", Interspeech 2012).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel
from model.audio import SILENCE

LARGEST_FACTOR = 2.0
"""Upper bound of the factors: a bin that would need more holds too little of the speech to be worth scaling."""


@torch.no_grad()
def estimate_variance_factors(model: AcousticModel, batches: Iterable[Batch]) -> np.ndarray:
    """Returns per mel bin the standard deviation of recordings relative to that of their synthesis, (M,).

    Standard deviations are means over clips. Factors lie between 1 and `LARGEST_FACTOR`; they are 1 without clips.
    """
    model.eval()
    device = next(model.parameters()).device
    recorded, synthesized = np.zeros(model.dimensions.n_mels), np.zeros(model.dimensions.n_mels)
    for batch in batches:
        speech = model.synthesize_batch(batch.to(device))
        for index in range(len(batch.clip_ids)):
            recorded += batch.mel[index, : batch.mel_lengths[index]].std(0, correction=0).numpy()
            synthesized += speech.mel[index, : speech.mel_lengths[index]].std(0, correction=0).cpu().numpy()
    if not recorded.any():
        return np.ones_like(recorded)
    return np.clip(recorded / np.maximum(synthesized, 1e-6), 1.0, LARGEST_FACTOR)


def restore_variance(mel: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiplies the deviation of a log-mel (S, M) from each bin's mean over the clip by `factors` (M,)."""
    mean = mel.mean(0, keepdims=True)
    return np.maximum(mean + (mel - mean) * factors, SILENCE).astype(np.float32)
