"""Loss terms of the acoustic model: each unweighted, masked by length, and at its minimum for a perfect prediction."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from model.acoustic.alignment import binarization_loss, forward_sum_loss
from model.acoustic.layers import length_mask, masked_mean
from model.acoustic.model import ModelOutput
from model.config.schema import LossConfig
from model.features.batching import Batch


def loss_terms(output: ModelOutput, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """Unweighted terms (scalars) of one batch.

    Returns:
        `mel`: mean absolute error in natural-log units. `duration`, `pitch`, `energy`: mean squared errors per token
        (log frames; normalised units). `length`: squared relative error of a clip's frames. `forward_sum`,
        `binarization`: nats per frame.
    """
    tokens = length_mask(batch.token_lengths, batch.ids.shape[1])
    frames = length_mask(batch.mel_lengths, batch.mel.shape[1])
    predicted, target = output.predicted, output.target
    return {
        "mel": masked_mean((output.mel - batch.mel).abs(), frames),
        "duration": masked_mean(F.mse_loss(predicted.log_durations, target.log_durations, reduction="none"), tokens),
        "length": _length_error(predicted.log_durations, batch),
        "pitch": masked_mean(F.mse_loss(predicted.pitch, target.pitch, reduction="none"), tokens),
        "energy": masked_mean(F.mse_loss(predicted.energy, target.energy, reduction="none"), tokens),
        "forward_sum": forward_sum_loss(
            output.alignment.log_soft, batch.token_lengths, batch.mel_lengths, config.forward_sum_blank_logprob
        ),
        "binarization": binarization_loss(output.alignment.log_soft, output.alignment.durations, batch.mel_lengths),
    }


def _length_error(log_durations: Tensor, batch: Batch) -> Tensor:
    """Squared relative error of each clip's whole length: errors of log durations alone favour the geometric mean, and
    speech that is a tenth too fast.
    """
    frames = log_durations.expm1().sum(1)  # padding is log(1 + 0)
    return (frames / batch.mel_lengths - 1).square().mean()


def loss_weights(config: LossConfig, progress: float) -> dict[str, float]:
    """Weight of each term at `progress` (share of training done, 0 to 1).

    Only binarisation is scheduled: pulled onto the hard path too early, the soft alignment freezes before it is right.
    """
    span = max(config.binarization_end - config.binarization_start, 1e-9)
    ramp = min(max((progress - config.binarization_start) / span, 0.0), 1.0)
    return {
        "mel": config.mel_loss_weight,
        "duration": config.duration_loss_weight,
        "length": config.duration_loss_weight,
        "pitch": config.pitch_loss_weight,
        "energy": config.energy_loss_weight,
        "forward_sum": config.forward_sum_loss_weight,
        "binarization": config.binarization_loss_weight * ramp,
    }


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The number that is minimised: sum of weight x term over the terms whose weight is not zero."""
    return sum(weights[name] * term for name, term in terms.items() if weights[name] > 0)
