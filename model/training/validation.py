"""Validation during training: teacher-forced and free-running metrics, style metrics, alignment plot, audio sample."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.acoustic.batch import Batch
from model.acoustic.conditioning import Conditions
from model.acoustic.encoders import kl_divergence
from model.acoustic.layers import sequence_mask
from model.acoustic.model import AcousticModel
from model.audio.dtw import dtw_path
from model.audio.griffin_lim import GriffinLim
from model.audio.io import write_audio
from model.config.training import TrainSettings
from model.features.batching import evaluation_batches
from model.features.store import FeatureStore
from model.training.losses import AVERAGED_OVER, SpeakerConsistency, loss_terms
from model.training.step import batch_counts

MEAN_OVER = {
    **AVERAGED_OVER,
    "mel_free": "clips",
    "length_ratio": "clips",
    "duration_error": "tokens",
    "sharpness": "frames",
}
"""Metric of `validate` -> unit that it is a mean over."""


@torch.no_grad()
def validate(
    model: AcousticModel,
    store: FeatureStore,
    config: TrainSettings,
    consistency: SpeakerConsistency | None = None,
) -> dict[str, float]:
    """Computes metrics on the validation split, unweighted means over its frames, tokens or clips (`MEAN_OVER`).

    They do not depend on the batch size, except `kl` (free bits are applied per batch) and `contrastive_speaker`
    (compares the clips of a batch).

    Returns:
        `validation/<term>`: each teacher-forced loss term. `validation/mel_free`: mean absolute log-mel error of speech
        synthesized from text, aligned to the recording by dynamic time warping. `validation/length_ratio`: its length
        over the recording's. `validation/duration_error`: mean absolute difference to the aligner's durations, frames
        per token. `validation/sharpness`: mean over frames of the largest share in the soft alignment, 1 when each
        frame belongs to one token. With style, also the metrics of `StyleMetrics.compute`.
    """
    model.eval()
    device = next(model.parameters()).device
    sums: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    style = StyleMetrics()
    for batch in evaluation_batches(store, "validation", config.training.batch_size):
        sizes = dict(zip(("tokens", "frames", "clips"), batch_counts(batch).tolist(), strict=True))
        batch = batch.to(device)
        output = model(batch)
        values = {name: float(term) for name, term in loss_terms(output, batch, config.loss, consistency).items()}
        values |= _free_running(model, batch)
        tokens = sequence_mask(batch.token_lengths, batch.ids.shape[1])
        frames = sequence_mask(batch.mel_lengths, batch.mel.shape[1])
        error = (output.predicted.log_durations.expm1() - output.alignment.durations).abs()
        values["duration_error"] = float(error[tokens].mean())
        values["sharpness"] = float(output.alignment.log_soft.exp().amax(2)[frames].mean())
        for name, value in values.items():
            size = sizes[MEAN_OVER[name]]
            sums[name] += size * value
            totals[name] += size
        style.add(output.conditions)
    values = {name: value / totals[name] for name, value in sums.items()} | style.compute()
    return {f"validation/{name}": value for name, value in values.items()}


def _free_running(model: AcousticModel, batch: Batch) -> dict[str, float]:
    """Computes `mel_free` and `length_ratio` of speech that is synthesized with predicted durations."""
    speech = model.synthesize_batch(batch)
    errors, ratios = [], []
    for i in range(len(batch.clip_ids)):
        spoken = speech.mel[i, : speech.mel_lengths[i]].cpu().numpy()
        recorded = batch.mel[i, : batch.mel_lengths[i]].cpu().numpy()
        rows, columns = dtw_path(spoken, recorded)
        errors.append(float(np.abs(spoken[rows] - recorded[columns]).mean()))
        ratios.append(len(spoken) / len(recorded))
    return {"mel_free": float(np.mean(errors)), "length_ratio": float(np.mean(ratios))}


@torch.no_grad()
def write_previews(
    model: AcousticModel, store: FeatureStore, config: TrainSettings, output: Path, step: int
) -> list[Path]:
    """Plots the alignment of the first validation clip, synthesizes its text, and returns the files written."""
    from matplotlib.figure import Figure  # slow to import, and needed here only

    model.eval()
    batch = next(iter(evaluation_batches(store, "validation", 1))).to(next(model.parameters()).device)
    alignment = model(batch).alignment
    speech = model.synthesize_batch(batch)
    spoken = speech.mel[0].cpu().numpy()

    figure = Figure(figsize=(11, 8), layout="constrained")
    soft, predicted, recorded = figure.subplots(3, 1)
    soft.imshow(
        alignment.log_soft[0].exp().T.cpu(), origin="lower", aspect="auto", interpolation="nearest", cmap="magma"
    )
    path = np.repeat(np.arange(alignment.durations.shape[1]), alignment.durations[0].cpu().numpy())
    soft.plot(np.arange(len(path)), path, color="cyan", linewidth=0.8, label="best path")
    soft.set(title=f"step {step}: alignment of {batch.clip_ids[0]}", xlabel="frame", ylabel="token")
    soft.legend(loc="upper left")
    for axes, mel, title in (
        (predicted, spoken, "synthesized from text"),
        (recorded, batch.mel[0].cpu().numpy(), "recording"),
    ):
        axes.imshow(mel.T, origin="lower", aspect="auto", vmin=-11.5, vmax=2.0)
        axes.set(title=title, xlabel="frame", ylabel="mel band")
    plot = output / "plots" / f"alignment-{step:08d}.png"
    plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(plot, dpi=80)

    sample = output / "samples" / f"validation-{step:08d}.wav"
    sample.parent.mkdir(parents=True, exist_ok=True)
    write_audio(sample, GriffinLim(config.audio)(spoken), config.audio.sample_rate)
    return [plot, sample]


ACTIVE_VARIANCE = 0.01
"""Variance over clips of a latent dimension's mean above which the dimension is in use (arXiv:1509.00519)."""


class StyleMetrics:
    """Accumulates the conditions of validation clips and computes how much of style tokens and latent is used."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.means: list[Tensor] = []
        self.divergences: list[Tensor] = []

    def add(self, conditions: Conditions) -> None:
        """Records the conditions of a batch."""
        if conditions.token_weights is not None:
            self.weights.append(conditions.token_weights.mean(1))  # over heads: (B, tokens)
        if conditions.posterior is not None and conditions.prior is not None:
            self.means.append(conditions.posterior.mean)
            self.divergences.append(kl_divergence(conditions.posterior, conditions.prior))

    def compute(self) -> dict[str, float]:
        """Returns the metrics, empty without style.

        Returns:
            `style_tokens_used`: exponential of the entropy of the mean weights, from 1 (a single token) to the number
            of tokens. `style_token_<i>`: mean weight. `style_variation`: standard deviation of a weight over clips, 0
            when all clips have the same style. `active_units`: latent dimensions in use. `kl_dimension_<i>`: nats.
        """
        values = {}
        if self.weights:
            weights = torch.cat(self.weights)
            mean = weights.mean(0)
            values["style_tokens_used"] = float((-(mean * mean.clamp(min=1e-9).log()).sum()).exp())
            values["style_variation"] = float(weights.std(0, correction=0).mean())
            values |= {f"style_token_{i:02d}": float(value) for i, value in enumerate(mean)}
        if self.means:
            values["active_units"] = float((torch.cat(self.means).var(0, correction=0) > ACTIVE_VARIANCE).sum())
            divergences = torch.cat(self.divergences).mean(0)
            values |= {f"kl_dimension_{i:02d}": float(value) for i, value in enumerate(divergences)}
        return values
