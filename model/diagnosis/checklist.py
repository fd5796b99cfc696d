"""The pre-training checklist: settings and data that are known to stall, break or waste a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from model.config.resolution import batch_range, presets
from model.config.schema import Config
from model.config.training import TrainSettings
from model.errors import MyXTTSError

if TYPE_CHECKING:  # it imports numpy, which would slow down `myxtts config check`
    from model.features.statistics import Statistics

LOG_MEL_SPREAD = (0.5, 5.0)
"""Plausible standard deviations of log-mel values; speech has 2 to 3. Outside, the audio is silent or no speech."""
LOUDNESS_RANGE = 12.0
"""Largest difference in level between speakers, in dB; above it, the model learns the levels of the recordings."""
MANY_SPEAKERS = 10
"""Number of speakers from which style tokens and the contrastive loss are advised."""

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the checklist.

    Attributes:
        check: Property that was checked, as a statement.
        severity: `ok`, `warning`, or `error`, which forbids training.
        evidence: Values that the severity is based on.
        fix: Change to make; empty if none is needed.
    """

    check: str
    severity: Severity
    evidence: str
    fix: str = ""

    @classmethod
    def ok(cls, check: str, evidence: str) -> Self:
        return cls(check=check, severity="ok", evidence=evidence)

    @classmethod
    def warning(cls, check: str, evidence: str, fix: str) -> Self:
        return cls(check=check, severity="warning", evidence=evidence, fix=fix)

    @classmethod
    def error(cls, check: str, evidence: str, fix: str) -> Self:
        return cls(check=check, severity="error", evidence=evidence, fix=fix)


def checklist(config: TrainSettings | Config) -> list[Finding]:
    """Runs every check of the settings; returns all findings, passed ones included, in a fixed order."""
    return [
        _mel_weight(config),
        _kl_weight(config),
        _batch(config),
        _learning_rate(config),
        _clipping(config),
        _schedule(config),
        _durations(config),
        _shapes(config),
        *([_vocoder(config)] if isinstance(config, Config) else []),
        _style(config),
        _comparison(config),
        _base(config),
    ]


class ChecklistError(MyXTTSError):
    """The settings or the data forbid training; the message names each finding and its fix."""


def refuse(findings: Iterable[Finding]) -> None:
    """Raises an error if any finding forbids training.

    Raises:
        ChecklistError: at least one of them is an error.
    """
    if errors := blocking(list(findings)):
        raise ChecklistError("; ".join(f"{finding.evidence}: {finding.fix}" for finding in errors))


def blocking(findings: list[Finding]) -> list[Finding]:
    """Returns the findings that forbid training."""
    return [finding for finding in findings if finding.severity == "error"]


def _mel_weight(config: TrainSettings | Config) -> Finding:
    weight, safe, dangerous = config.loss.mel_loss_weight, (2.5, 5.0), 10.0
    evidence = f"loss.mel_loss_weight is {weight:g}; safe is {safe[0]:g} to {safe[1]:g}"
    fix = "set loss.mel_loss_weight to 2.5"
    if safe[0] <= weight <= safe[1]:
        return Finding.ok("loss weights in range", evidence)
    if weight > dangerous and not config.loss.allow_dangerous:
        return Finding.error(
            "loss weights in range",
            f"{evidence}; above {dangerous:g} it dominates the other terms",
            f"{fix}, or force it with loss.allow_dangerous",
        )
    return Finding.warning("loss weights in range", evidence, fix)


def _kl_weight(config: TrainSettings | Config) -> Finding:
    weight, safe, dangerous = config.loss.kl_loss_weight, (0.5, 2.0), 10.0
    evidence = f"loss.kl_loss_weight is {weight:g}; safe is {safe[0]:g} to {safe[1]:g}"
    fix = "set loss.kl_loss_weight to 1.0"
    if safe[0] <= weight <= safe[1]:
        return Finding.ok("weight of the KL divergence in range", evidence)
    if weight >= dangerous and not config.loss.allow_dangerous:
        return Finding.error(
            "weight of the KL divergence in range",
            f"{evidence}; at {dangerous:g} or more the latent collapses onto its prior",
            f"{fix}, or force it with loss.allow_dangerous",
        )
    return Finding.warning("weight of the KL divergence in range", evidence, fix)


def _batch(config: TrainSettings | Config) -> Finding:
    batch, (low, high) = config.training.batch_size, batch_range(config.model_size)
    evidence = f"training.batch_size is {batch}; {low} to {high} is advised for {config.model_size}"
    if low <= batch <= high:
        return Finding.ok("batch fits the model size", evidence)
    return Finding.warning(
        "batch fits the model size", evidence, f"set training.batch_size to {min(max(batch, low), high)}"
    )


def _learning_rate(config: TrainSettings | Config) -> Finding:
    learning_rate = config.training.learning_rate
    advised = presets()[0][config.model_size]["training"]["learning_rate"]
    evidence = f"training.learning_rate is {learning_rate:g}; about {advised:g} is advised for {config.model_size}"
    if advised / 5 <= learning_rate <= advised * 3:
        return Finding.ok("learning rate fits the model size", evidence)
    kind = "too high: the loss will oscillate" if learning_rate > advised else "too low: training will be slow"
    return Finding.warning(
        "learning rate fits the model size",
        f"{evidence}; {kind}",
        f"set training.learning_rate to {advised:g}",
    )


def _clipping(config: TrainSettings | Config) -> Finding:
    norm = config.training.gradient_clip_norm
    evidence = f"training.gradient_clip_norm is {norm:g}"
    if norm <= 5.0:
        return Finding.ok("gradients are clipped", evidence)
    return Finding.warning(
        "gradients are clipped",
        f"{evidence}: too large to have an effect",
        "set training.gradient_clip_norm to 0.5",
    )


def _schedule(config: TrainSettings | Config) -> Finding:
    training = config.training
    evidence = f"{training.warmup_steps} of {training.max_steps} steps are warm-up"
    if training.warmup_steps < training.max_steps / 2:
        return Finding.ok("the schedule reaches its peak", evidence)
    return Finding.warning(
        "the schedule reaches its peak",
        evidence,
        f"set training.warmup_steps to {training.max_steps // 10} or raise training.max_steps",
    )


def _durations(config: TrainSettings | Config) -> Finding:
    loss = config.loss
    evidence = f"binarization grows from {loss.binarization_start:g} to {loss.binarization_end:g} of training"
    if loss.binarization_start < loss.binarization_end and loss.duration_loss_weight > 0:
        return Finding.ok("alignment and durations are trained", evidence)
    return Finding.error(
        "alignment and durations are trained",
        f"{evidence}; loss.duration_loss_weight is {loss.duration_loss_weight:g}",
        "set loss.binarization_start below loss.binarization_end and loss.duration_loss_weight to 0.1",
    )


def _shapes(config: TrainSettings | Config) -> Finding:
    training, check = config.training, "shapes are static on GPUs and when compiling"
    if training.enable_static_shapes:
        return Finding.ok(check, f"batches come in {training.num_shape_buckets} shapes at most")
    on_gpu = training.device == "cuda" or training.model_gpu >= 0
    if not training.enable_compile and not on_gpu:
        return Finding.ok(check, "no compilation, and no GPU is requested")
    reason = (
        "every new shape is compiled" if training.enable_compile else "changing shapes fragment a GPU's memory pool"
    )
    evidence = f"training.enable_static_shapes is off; {reason}"
    return Finding.warning(check, evidence, "enable training.enable_static_shapes")


def _vocoder(config: Config) -> Finding:
    kind, check = config.vocoder.type, "a vocoder is chosen"
    evidence = f"vocoder.type is {kind}"
    if kind != "griffin_lim" or config.model_size in ("xtiny", "tiny"):
        return Finding.ok(check, evidence)
    evidence = f"{evidence}, which limits the quality of a {config.model_size} model"
    return Finding.warning(
        check, evidence, "set vocoder.type to vocos or hifigan (trained on the corpus, or a checkpoint)"
    )


def _style(config: TrainSettings | Config) -> Finding:
    check, wanted = "style tokens are on for cloning", presets()[0][config.model_size]["model"].get("enable_gst", False)
    if config.model.enable_gst:
        return Finding.ok(check, f"{config.model.gst_num_style_tokens} style tokens")
    if not wanted:
        return Finding.ok(check, f"not enabled for {config.model_size}: its short training is spent on the text")
    return Finding.warning(check, "model.enable_gst is off; voices are cloned without style", "enable model.enable_gst")


def _comparison(config: TrainSettings | Config) -> Finding:
    """Checks that a micro-batch holds clips of two speakers; the clips of a batch are grouped by speaker."""
    check, loss, training = "speakers can be compared", config.loss, config.training
    if not loss.use_contrastive_speaker_loss:
        return Finding.ok(check, "no loss compares speakers")
    clips, own = training.batch_size // training.gradient_accumulation_steps, loss.contrastive_clips_per_speaker
    evidence = f"a micro-batch has {clips} clips, {own} of each speaker"
    if clips >= 2 * own:
        return Finding.ok(check, evidence)
    fix = "lower training.gradient_accumulation_steps or loss.contrastive_clips_per_speaker"
    return Finding.warning(check, f"{evidence}: too few for two speakers", f"raise training.batch_size, or {fix}")


def _base(config: TrainSettings | Config) -> Finding:
    check, training = "settings that need a base voice have one", config.training
    generated = isinstance(config, Config) and config.corpus.format == "generated"
    if training.start_from != "none" and not (training.start_from == "auto" and generated):
        return Finding.ok(check, f"training.start_from is {training.start_from}")
    used = [
        f"training.{name} is {value:g}"
        for name in ("rehearsal", "base_interpolation")
        if (value := getattr(training, name))
    ]
    if not used:
        return Finding.ok(check, "training from scratch uses none of them")
    evidence = f"{' and '.join(used)}, but training.start_from is {training.start_from}"
    if training.start_from == "auto":
        evidence += ", which is none for generated speech"
    return Finding.error(check, evidence, "give a voice to start from (training.start_from), or set them to 0")


def check_normalization(statistics: Statistics) -> Finding:
    """Checks that the features have the statistics of speech, and that their speakers are about equally loud."""
    check, (low, high) = "the dataset is normalized", LOG_MEL_SPREAD
    spread = statistics.mel_std
    evidence = f"log-mel {statistics.mel_mean:.2f} +- {spread:.2f}"
    if not (math.isfinite(statistics.mel_mean) and low <= spread <= high):
        fix = "check the recordings (`myxtts corpus validate`), then build the features again"
        return Finding.error(check, f"{evidence}; speech has a deviation of {low:g} to {high:g}", fix)
    levels = [speaker.energy_mean for speaker in statistics.speakers.values()]
    apart = 20 * math.log10(math.e) * (max(levels) - min(levels))
    evidence = f"{evidence}; speakers are {apart:.1f} dB apart"
    if apart <= LOUDNESS_RANGE:
        return Finding.ok(check, evidence)
    return Finding.warning(check, evidence, "set features.target_loudness to -23 and build the features again")


def check_speaker_contrast(config: Config, statistics: Statistics) -> Finding:
    """Checks that a corpus of many speakers is trained with style tokens and the contrastive speaker loss."""
    check, wanted = "speakers are separated", ("model.enable_gst", "loss.use_contrastive_speaker_loss")
    on = (config.model.enable_gst, config.loss.use_contrastive_speaker_loss)
    off = [key for key, given in zip(wanted, on, strict=True) if not given]
    evidence = f"the corpus has {len(statistics.speakers)} speakers"
    if len(statistics.speakers) < MANY_SPEAKERS or not off:
        return Finding.ok(check, evidence)
    return Finding.warning(check, f"{evidence}; off: {', '.join(off)}", f"enable {' and '.join(off)}")
