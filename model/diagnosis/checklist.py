"""The pre-training checklist: settings that are known to stall, explode or waste a run, found before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.config import Config, batch_range
from model.config.resolution import presets

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the checklist: what was looked at, how it stands, the evidence, and the cure where one is needed."""

    check: str
    severity: Severity
    evidence: str
    cure: str = ""


def checklist(config: Config) -> list[Finding]:
    """Every check, good ones included, in a fixed order."""
    return [
        _mel_weight(config),
        _kl_weight(config),
        _batch(config),
        _learning_rate(config),
        _clipping(config),
        _schedule(config),
        _durations(config),
    ]


def blocking(findings: list[Finding]) -> list[Finding]:
    """Findings that forbid training."""
    return [finding for finding in findings if finding.severity == "error"]


def _mel_weight(config: Config) -> Finding:
    weight, safe, dangerous = config.loss.mel_loss_weight, (2.5, 5.0), 10.0
    evidence = f"loss.mel_loss_weight is {weight:g}; safe is {safe[0]:g} to {safe[1]:g}"
    cure = "set loss.mel_loss_weight to 2.5"
    if safe[0] <= weight <= safe[1]:
        return Finding("loss weights in range", "ok", evidence)
    if weight > dangerous and not config.loss.allow_dangerous:
        return Finding(
            "loss weights in range",
            "error",
            f"{evidence}; above {dangerous:g} it drowns the other terms",
            f"{cure}, or force it with loss.allow_dangerous",
        )
    return Finding("loss weights in range", "warning", evidence, cure)


def _kl_weight(config: Config) -> Finding:
    weight, safe, dangerous = config.loss.kl_loss_weight, (0.5, 2.0), 10.0
    evidence = f"loss.kl_loss_weight is {weight:g}; safe is {safe[0]:g} to {safe[1]:g}"
    cure = "set loss.kl_loss_weight to 1.0"
    if safe[0] <= weight <= safe[1]:
        return Finding("weight of the latent in range", "ok", evidence)
    if weight >= dangerous and not config.loss.allow_dangerous:
        return Finding(
            "weight of the latent in range",
            "error",
            f"{evidence}; from {dangerous:g} on the latent is never used",
            f"{cure}, or force it with loss.allow_dangerous",
        )
    return Finding("weight of the latent in range", "warning", evidence, cure)


def _batch(config: Config) -> Finding:
    batch, (low, high) = config.training.batch_size, batch_range(config.model_size)
    evidence = f"training.batch_size is {batch}; {config.model_size} wants {low} to {high}"
    if low <= batch <= high:
        return Finding("batch fits the model size", "ok", evidence)
    return Finding(
        "batch fits the model size", "warning", evidence, f"set training.batch_size to {min(max(batch, low), high)}"
    )


def _learning_rate(config: Config) -> Finding:
    rate = config.training.learning_rate
    advised = presets()[0][config.model_size]["training"]["learning_rate"]
    evidence = f"training.learning_rate is {rate:g}; {config.model_size} wants about {advised:g}"
    if advised / 5 <= rate <= advised * 3:
        return Finding("learning rate fits the model size", "ok", evidence)
    kind = "too high: the loss will oscillate" if rate > advised else "too low: training will crawl"
    return Finding(
        "learning rate fits the model size",
        "warning",
        f"{evidence}; {kind}",
        f"set training.learning_rate to {advised:g}",
    )


def _clipping(config: Config) -> Finding:
    norm = config.training.gradient_clip_norm
    evidence = f"training.gradient_clip_norm is {norm:g}"
    if norm <= 5.0:
        return Finding("gradients are clipped", "ok", evidence)
    return Finding(
        "gradients are clipped", "warning", f"{evidence}: too wide to act", "set training.gradient_clip_norm to 0.5"
    )


def _schedule(config: Config) -> Finding:
    training = config.training
    evidence = f"{training.warmup_steps} of {training.max_steps} steps are warm-up"
    if training.warmup_steps < training.max_steps / 2:
        return Finding("the schedule reaches its full rate", "ok", evidence)
    return Finding(
        "the schedule reaches its full rate",
        "warning",
        evidence,
        f"set training.warmup_steps to {training.max_steps // 10} or raise training.max_steps",
    )


def _durations(config: Config) -> Finding:
    loss = config.loss
    evidence = f"binarisation grows from {loss.binarization_start:g} to {loss.binarization_end:g} of training"
    if loss.binarization_start < loss.binarization_end and loss.duration_loss_weight > 0:
        return Finding("alignment and durations are trained", "ok", evidence)
    return Finding(
        "alignment and durations are trained",
        "error",
        f"{evidence}; loss.duration_loss_weight is {loss.duration_loss_weight:g}",
        "set loss.binarization_start below loss.binarization_end and loss.duration_loss_weight to 0.1",
    )
