"""Loss terms of the acoustic model, their weights and the adaptation of these weights."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from model.acoustic.aligner import Alignment
from model.acoustic.alignment import binarization_loss, forward_sum_loss, guided_attention_loss
from model.acoustic.batch import Batch
from model.acoustic.conditioning import Conditions
from model.acoustic.encoders import kl_divergence
from model.acoustic.layers import masked_mean, sequence_mask
from model.acoustic.model import ModelOutput
from model.audio import SILENCE
from model.config.training import LossConfig, TrainSettings
from model.features.store import FeatureStore
from model.speaker_encoder import MelResemblyzer

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
"""Loss term -> unit that it is a mean over; a micro-batch is weighted by its share of these units (`step.py`). The
contrastive term compares the clips of a micro-batch only, and the free bits of `kl` are applied per micro-batch."""


MAX_EXCERPTS = 4
"""Clips of a micro-batch that are embedded in a training step: on a CPU, all of them would take a large share of it."""


@dataclass(frozen=True)
class SpeakerConsistency:
    """Speaker consistency loss with a pretrained encoder (YourTTS, arXiv:2112.02418).

    An excerpt of a predicted mel is embedded and compared with the mean embedding of its speaker's recorded mels. The
    same excerpt of the recording would be a noisier target. In training, the excerpts are drawn at random, from at most
    `MAX_EXCERPTS` clips of a micro-batch; where gradients are disabled, they are the middle of each clip.

    Not an `nn.Module`: distributed training would wait for gradients of the encoder's frozen parameters.

    Attributes:
        encoder: Frozen encoder of mels.
        speakers: (S, V) unit vectors of the speakers, by the same encoder (`embed_speakers`).
    """

    encoder: MelResemblyzer
    speakers: Tensor

    def __call__(self, mel: Tensor, lengths: Tensor, speakers: Tensor) -> Tensor:
        """Returns 1 - cosine, averaged over the clips.

        Args:
            mel: (B, S, M) predicted log-mels.
            lengths: (B,) frames.
            speakers: (B,) int64, row of `speakers`.
        """
        frames, place = self.encoder.frames, torch.tensor(0.5)
        if torch.is_grad_enabled():
            rows = torch.randperm(len(lengths))[:MAX_EXCERPTS].to(lengths.device)
            mel, lengths, speakers = mel[rows], lengths[rows], speakers[rows]
            place = torch.rand(len(lengths))
        place = place.to(lengths.device)
        index = ((lengths - frames).clamp(min=0) * place).long()[:, None] + torch.arange(frames, device=lengths.device)
        outside = index >= lengths[:, None]  # (B, frames)
        index = index.clamp(max=mel.shape[1] - 1)[:, :, None].expand(-1, -1, mel.shape[2])
        excerpt = mel.gather(1, index).masked_fill(outside[:, :, None], SILENCE)
        return (1 - (self.encoder(excerpt) * self.speakers[speakers]).sum(1)).mean()


CLIPS_PER_SPEAKER = 32
"""Recordings that a speaker's mean embedding is computed from, at most."""
MAX_CLIPS = 1000
"""Recordings that are embedded in all, beyond one of each speaker: some ten seconds on a core."""


@torch.inference_mode()
def embed_speakers(store: FeatureStore, encoder: MelResemblyzer) -> Tensor:
    """Returns the mean directions (S, V) of the embeddings of each speaker's recorded mels."""
    count = max(1, min(CLIPS_PER_SPEAKER, MAX_CLIPS // len(store.speakers)))
    vectors = []
    for name in store.speakers:
        clips = store.clips_of_speaker[name]
        chosen = sorted({clips[i * len(clips) // count] for i in range(count)})
        excerpts = [_excerpts(torch.tensor(store.clip(position).mel), encoder.frames) for position in chosen]
        vectors.append(encoder(torch.cat(excerpts).to(encoder.bank.device)).mean(0))
    return F.normalize(torch.stack(vectors), dim=1)


def _excerpts(mel: Tensor, frames: int) -> Tensor:
    """Cuts a mel (S, M) into whole excerpts (E, frames, M); a shorter one is a single excerpt, padded with silence."""
    whole = len(mel) // frames
    if whole:
        return mel[: whole * frames].unflatten(0, (whole, frames))
    return F.pad(mel, (0, 0, 0, frames - len(mel)), value=SILENCE)[None]


def loss_terms(
    output: ModelOutput, batch: Batch, config: LossConfig, consistency: SpeakerConsistency | None = None
) -> dict[str, Tensor]:
    """Returns the unweighted terms (scalars) of one batch; those of a feature only where it is enabled.

    Args:
        output: Output of the model.
        batch: The batch.
        config: Settings of the losses.
        consistency: Speaker consistency loss with a pretrained encoder; a model with an encoder of its own brings it.

    Returns:
        `mel`: mean absolute error in natural-log units. `duration`, `pitch`, `energy`: mean squared errors per token
        (log frames; normalized units). `length`: squared relative error of a clip's number of frames. `forward_sum`,
        `binarization`: nats per frame, while durations are learned. `guided_attention`: 0 to 1. `kl`: nats per latent
        dimension, at least `kl_free_bits`. `contrastive_speaker`: nats. `speaker_consistency`: 1 - cosine.
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
        embedding = output.embed_synthesis(output.mel, batch.mel_lengths)
        target_embedding = output.conditions.speaker.detach()
        terms["speaker_consistency"] = (1 - F.cosine_similarity(embedding, target_embedding)).mean()
    elif consistency is not None:
        terms["speaker_consistency"] = consistency(output.mel, batch.mel_lengths, batch.speaker)
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
    if conditions.posterior is not None and conditions.prior is not None:
        per_dimension = kl_divergence(conditions.posterior, conditions.prior).mean(0)  # (L,)
        terms["kl"] = per_dimension.clamp(min=config.kl_free_bits).mean()
    if config.use_contrastive_speaker_loss:
        terms["contrastive_speaker"] = contrastive_speaker_loss(
            conditions.speaker, batch.speaker, batch.reference_clip, config.contrastive_loss_temperature
        )
    return terms


def contrastive_speaker_loss(embeddings: Tensor, speakers: Tensor, clips: Tensor, temperature: float) -> Tensor:
    """Computes the supervised contrastive loss (arXiv:2004.11362) between the clips of a batch.

    Args:
        embeddings: (B, E) unit vectors.
        speakers: (B,) speaker of each clip.
        clips: (B,) recording that each embedding comes from; embeddings of one recording are not compared.
        temperature: Divisor of the cosine similarities.

    Returns:
        Scalar: mean over the clips that can be compared with both another clip of their speaker and a clip of another
        speaker; 0 where there are none.
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
    """Returns the squared relative error of each clip's length, averaged.

    Errors of log durations alone favor the geometric mean, which makes speech about 10 % too fast.
    """
    frames = log_durations.expm1().sum(1)  # padding is log(1 + 0)
    return (frames / batch.mel_lengths - 1).square().mean()


def loss_weights(config: LossConfig, progress: float) -> dict[str, float]:
    """Returns the weight of each term at `progress` (share of training done, 0 to 1).

    Binarization starts late, because a soft alignment that is pulled onto the hard path too early stays wrong. Guidance
    is annealed to 0, because speech is less even than the diagonal. The KL divergence is annealed from 0 to avoid
    posterior collapse. Speaker consistency starts once predicted mels resemble speech.
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


def has_unused_parameters(config: TrainSettings) -> bool:
    """Returns whether some step gives some trainable parameter no gradient at all.

    A term with weight 0 is left out of the sum.
    """
    losses, model = config.loss, config.model
    predictors = [losses.duration_loss_weight]
    guided = losses.guided_attention_end if losses.use_guided_attention and losses.guided_attention_loss_weight else 0.0
    agent_unused = losses.binarization_loss_weight == 0 or guided <= losses.binarization_start
    if model.enable_prosody_prediction:
        predictors += [losses.pitch_loss_weight, losses.energy_loss_weight]
    return (
        min(predictors) == 0
        or (model.use_forward_attention and agent_unused)  # guidance and binarization train its transition agent
        or model.use_variational_encoder  # the KL divergence trains the prior, and has weight 0 at first
    )


def _ramp(progress: float, start: float, end: float) -> float:
    """Returns 0 before `start`, 1 after `end`, and a linear interpolation between them."""
    return min(max((progress - start) / max(end - start, 1e-9), 0.0), 1.0)


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Returns the loss to minimize: the sum of weight x term over the terms with a positive weight, at least one."""
    return reduce(operator.add, (weights[name] * term for name, term in terms.items() if weights[name] > 0))


def constant_weights(config: LossConfig) -> dict[str, float]:
    """Returns the positive weights that no schedule changes; scheduled weights are not adapted."""
    steps = [loss_weights(config, i / 50) for i in range(51)]
    constant = {name for name in steps[0] if len({step[name] for step in steps}) == 1}
    return {name: weight for name, weight in steps[0].items() if weight > 0 and name in constant}


MAX_FACTOR = 3.0
"""Largest factor of an adapted weight on its base value; its smallest is the inverse."""
MAX_CHANGE = 0.05
"""Largest relative change of a weight at one update."""
DEAD_BAND = 0.25
"""Relative growth (natural log) that counts as noise: about four deviations of a mean over `AVERAGING_STEPS` steps."""
AVERAGING_STEPS = 100
"""Length of the running mean of a term; the mean over the first steps, as many as this, is the reference."""


class AdaptiveLossWeights:
    """Adapts the weights of loss terms: lowers those of terms that grow relative to the others, raises those that fall.

    The factors on the base weights are 1 until the reference is known, and stay exactly 1 within the dead band.

    Args:
        terms: Names of the terms to adapt.
        interval: Steps between updates.

    Attributes:
        steps: Number of good steps so far.
        means: Term -> running mean.
        reference: Term -> running mean after `AVERAGING_STEPS` steps; empty before.
        factors: Term -> factor on its base weight.
    """

    def __init__(self, terms: list[str], interval: int) -> None:
        self.interval = interval
        self.steps = 0
        self.means = dict.fromkeys(terms, 0.0)
        self.reference: dict[str, float] = {}
        self.factors = dict.fromkeys(terms, 1.0)

    def weights(self, base: dict[str, float]) -> dict[str, float]:
        """Returns the adapted weights of this step.

        Args:
            base: Weights of the settings and their schedules.
        """
        return {name: weight * self.factors.get(name, 1.0) for name, weight in base.items()}

    def update(self, terms: dict[str, float]) -> None:
        """Records the unweighted terms of one good step."""
        self.steps += 1
        pace = 1 / min(self.steps, AVERAGING_STEPS)
        present = [name for name in self.means if name in terms]  # a disabled feature has no term
        for name in present:
            self.means[name] += pace * (terms[name] - self.means[name])
        if self.steps == AVERAGING_STEPS:
            self.reference = {name: self.means[name] for name in present}
        elif self.steps > AVERAGING_STEPS and self.steps % self.interval == 0:
            self._adapt([name for name in present if name in self.reference])

    def _adapt(self, names: list[str]) -> None:
        """Moves each factor towards the inverse of its term's growth beyond the mean growth and the dead band."""
        epsilon = 1e-12
        growth = {name: math.log((self.means[name] + epsilon) / (self.reference[name] + epsilon)) for name in names}
        mean_growth = sum(growth.values()) / len(growth)
        step, bound = math.log1p(MAX_CHANGE), math.log(MAX_FACTOR)
        for name, own_growth in growth.items():
            relative = own_growth - mean_growth
            beyond = math.copysign(max(abs(relative) - DEAD_BAND, 0.0), relative)
            target = min(max(-beyond, -bound), bound)
            current = math.log(self.factors[name])
            self.factors[name] = math.exp(current + min(max(target - current, -step), step))

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "means": self.means,
            "reference": self.reference,
            "factors": self.factors,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state_dict():
            value = state[name]
            setattr(self, name, dict(value) if isinstance(value, dict) else value)
