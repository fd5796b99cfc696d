"""Loss terms of the acoustic model, their weights and the adaptation of these weights."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from model.acoustic.aligner import Alignment
from model.acoustic.alignment import binarization_loss, forward_sum_loss
from model.acoustic.attention import guided_attention_loss
from model.acoustic.batch import Batch
from model.acoustic.conditioning import Conditions
from model.acoustic.encoders import divergence
from model.acoustic.layers import masked_mean, sequence_mask
from model.acoustic.model import ModelOutput
from model.config.training import LossConfig, TrainSettings

AVERAGED_OVER = {
    "mel": "frames",
    "duration": "tokens",
    "length": "clips",
    "pitch": "tokens",
    "energy": "tokens",
    "forward_sum": "clips",
    "binarization": "frames",
    "guided_attention": "frames",
    "kl": "clips",
    "contrastive_speaker": "clips",
    "speaker_consistency": "clips",
}
"""What each term is a mean over: by its share of these a part of a batch counts in the whole (`accumulation.py`). The
contrastive term compares the clips of a part only, and the free bits of `kl` are taken in each part."""


def loss_terms(output: ModelOutput, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """Unweighted terms (scalars) of one batch; those of a feature only where it is on.

    Returns:
        `mel`: mean absolute error in natural-log units. `duration`, `pitch`, `energy`: mean squared errors per token
        (log frames; normalised units). `length`: squared relative error of a clip's frames. `forward_sum`,
        `binarization`: nats per frame, while durations are learned. `guided_attention`: 0 to 1. `kl`: nats per latent
        dimension, free ones included. `contrastive_speaker`: nats. `speaker_consistency`: 1 - cosine.
    """
    tokens = sequence_mask(batch.token_lengths, batch.ids.shape[1])
    frames = sequence_mask(batch.mel_lengths, batch.mel.shape[1])
    predicted, target = output.predicted, output.target
    terms = {
        "mel": masked_mean((output.mel - batch.mel).abs(), frames),
        "duration": masked_mean(F.mse_loss(predicted.log_durations, target.log_durations, reduction="none"), tokens),
        "length": _length_error(predicted.log_durations, batch),
        "pitch": masked_mean(F.mse_loss(predicted.pitch, target.pitch, reduction="none"), tokens),
        "energy": masked_mean(F.mse_loss(predicted.energy, target.energy, reduction="none"), tokens),
    }
    if output.alignment is not None:
        terms |= _alignment_terms(output.alignment, batch, config)
    terms |= _condition_terms(output.conditions, batch, config)
    if output.embed_synthesis is not None:
        heard = output.embed_synthesis(output.mel, batch.mel_lengths)
        terms["speaker_consistency"] = (1 - F.cosine_similarity(heard, output.conditions.speaker.detach())).mean()
    return terms


def _alignment_terms(alignment: Alignment, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    lengths = (batch.token_lengths, batch.mel_lengths)
    terms = {
        "forward_sum": forward_sum_loss(alignment.log_emission, *lengths, config.forward_sum_blank_logprob),
        "binarization": binarization_loss(alignment.log_soft, alignment.durations, batch.mel_lengths),
    }
    if config.use_guided_attention:
        terms["guided_attention"] = guided_attention_loss(alignment.log_soft, *lengths, config.guided_attention_sigma)
    return terms


def _condition_terms(conditions: Conditions, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    terms = {}
    if conditions.posterior is not None:
        per_dimension = divergence(conditions.posterior, conditions.prior).mean(0)  # (L,)
        terms["kl"] = per_dimension.clamp(min=config.kl_free_bits).mean()
    if config.use_contrastive_speaker_loss:
        terms["contrastive_speaker"] = contrastive_speaker_loss(
            conditions.speaker, batch.speaker, batch.reference_clip, config.contrastive_loss_temperature
        )
    return terms


def contrastive_speaker_loss(embeddings: Tensor, speakers: Tensor, clips: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (arXiv:2004.11362): a clip should be nearest to other clips of its speaker.

    Args:
        embeddings: (B, E) unit vectors.
        speakers: (B,) who speaks.
        clips: (B,) the recording that each embedding comes from; one is never compared with itself.
        temperature: Of the cosines.

    Returns:
        Scalar: mean over the clips that have both another clip of their speaker and another speaker to compare with;
        0 where there is none.
    """
    comparable = clips[:, None] != clips[None, :]
    same = speakers[:, None] == speakers[None, :]
    positive, negative = comparable & same, comparable & ~same
    cosines = embeddings.float() @ embeddings.float().T / temperature
    log_share = cosines - cosines.masked_fill(~comparable, -1e4).logsumexp(1, keepdim=True)
    anchors = positive.any(1) & negative.any(1)
    each = -(log_share * positive).sum(1) / positive.sum(1).clamp(min=1)
    return (each * anchors).sum() / anchors.sum().clamp(min=1)


def _length_error(log_durations: Tensor, batch: Batch) -> Tensor:
    """Squared relative error of each clip's whole length: errors of log durations alone favour the geometric mean, and
    speech that is a tenth too fast.
    """
    frames = log_durations.expm1().sum(1)  # padding is log(1 + 0)
    return (frames / batch.mel_lengths - 1).square().mean()


def loss_weights(config: LossConfig, progress: float) -> dict[str, float]:
    """Weight of each term at `progress` (share of training done, 0 to 1).

    Binarisation is scheduled, because pulled onto the hard path too early the soft alignment freezes before it is
    right; guidance fades, because speech is not as even as the diagonal; the divergence grows, so that the latent is
    used before it is taxed; and consistency waits until predicted mels are speech.
    """
    binarized = _ramp(progress, config.binarization_start, config.binarization_end)
    return {
        "mel": config.mel_loss_weight,
        "duration": config.duration_loss_weight,
        "length": config.duration_loss_weight,
        "pitch": config.pitch_loss_weight,
        "energy": config.energy_loss_weight,
        "forward_sum": config.forward_sum_loss_weight,
        "binarization": config.binarization_loss_weight * binarized,
        "guided_attention": config.guided_attention_loss_weight * (1 - _ramp(progress, 0, config.guided_attention_end)),
        "kl": config.kl_loss_weight * _ramp(progress, 0, config.kl_annealing_end),
        "contrastive_speaker": config.contrastive_loss_weight,
        "speaker_consistency": config.speaker_consistency_loss_weight * (progress >= config.speaker_consistency_start),
    }


def leaves_parameters_out(config: TrainSettings) -> bool:
    """Whether some step gives some parameter no gradient at all: a term without weight is left out of the sum, and an
    aligner whose durations are kept rests.
    """
    losses, model = config.loss, config.model
    predictors = [losses.duration_loss_weight]
    guided = losses.guided_attention_end if losses.use_guided_attention and losses.guided_attention_loss_weight else 0.0
    agent_waits = losses.binarization_loss_weight == 0 or guided <= losses.binarization_start
    if model.enable_prosody_prediction:
        predictors += [losses.pitch_loss_weight, losses.energy_loss_weight]
    return (
        min(predictors) == 0
        or (model.use_forward_attention and agent_waits)  # its transition agent learns from guidance and binarisation
        or model.use_variational_encoder  # the prior learns from the divergence, which weighs nothing at first
        or config.training.durations == "cached"
    )


def _ramp(progress: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, a straight line between them."""
    return min(max((progress - start) / max(end - start, 1e-9), 0.0), 1.0)


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The number that is minimised: sum of weight x term over the terms whose weight is not zero."""
    return sum(weights[name] * term for name, term in terms.items() if weights[name] > 0)


LARGEST_FACTOR = 3.0
"""A weight stays between its base divided and multiplied by this."""


LARGEST_CHANGE = 0.05
"""Relative change of a weight at one update."""


DEAD_BAND = 0.25
"""A relative growth (natural log) that is noise: about four deviations of a mean over `MEMORY` noisy steps."""


MEMORY = 100
"""Steps that a running magnitude remembers; the first so many give the reference."""


def unscheduled_weights(config: LossConfig) -> dict[str, float]:
    """Weights of the terms that have one, and the same one all the time: schedules are nobody's to adapt."""
    steps = [loss_weights(config, i / 50) for i in range(51)]
    constant = {name for name in steps[0] if len({step[name] for step in steps}) == 1}
    return {name: weight for name, weight in steps[0].items() if weight > 0 and name in constant}


class AdaptiveWeights:
    """Factors on the base weights: 1 until the reference is known, and exactly 1 while nothing but noise moves.

    Args:
        terms: Names of the terms to adapt.
        interval: Steps between updates.
    """

    def __init__(self, terms: list[str], interval: int) -> None:
        self.interval = interval
        self.steps = 0
        self.magnitudes = dict.fromkeys(terms, 0.0)
        self.reference: dict[str, float] = {}
        self.factors = dict.fromkeys(terms, 1.0)

    def weights(self, base: dict[str, float]) -> dict[str, float]:
        """The weights of this step, from the scheduled ones."""
        return {name: weight * self.factors.get(name, 1.0) for name, weight in base.items()}

    def update(self, terms: dict[str, float]) -> None:
        """Take in the unweighted terms of one good step."""
        self.steps += 1
        pace = 1 / min(self.steps, MEMORY)
        present = [name for name in self.magnitudes if name in terms]  # a feature that is off has no term
        for name in present:
            self.magnitudes[name] += pace * (terms[name] - self.magnitudes[name])
        if self.steps == MEMORY:
            self.reference = {name: self.magnitudes[name] for name in present}
        elif self.steps > MEMORY and self.steps % self.interval == 0:
            self._adapt([name for name in present if name in self.reference])

    def _adapt(self, names: list[str]) -> None:
        tiny = 1e-12
        growth = {name: math.log((self.magnitudes[name] + tiny) / (self.reference[name] + tiny)) for name in names}
        common = sum(growth.values()) / len(growth)
        step, bound = math.log1p(LARGEST_CHANGE), math.log(LARGEST_FACTOR)
        for name, own in growth.items():
            relative = own - common
            beyond = math.copysign(max(abs(relative) - DEAD_BAND, 0.0), relative)
            target = min(max(-beyond, -bound), bound)
            now = math.log(self.factors[name])
            self.factors[name] = math.exp(now + min(max(target - now, -step), step))

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "magnitudes": self.magnitudes,
            "reference": self.reference,
            "factors": self.factors,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state_dict():
            value = state[name]
            setattr(self, name, dict(value) if isinstance(value, dict) else value)
