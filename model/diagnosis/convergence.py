"""Whether a training run converges: findings from its history and its last checkpoint, each with evidence and cure."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from model.diagnosis.checklist import Finding
from model.errors import MyXTTSError
from model.loop.checkpoints import list_checkpoints, load_checkpoint
from model.loop.reporting import read_history

FLAT = 0.01
"""Relative fall of the loss from the middle third of a run to its last below which it stands still."""
UNSTEADY = 0.25
"""Mean relative change of the loss between two log lines above which it oscillates."""
BLURRED = 0.6
"""Mean largest share of a frame's alignment below which text and audio do not match."""
WORSE = 1.1
"""Validation error over its best from which on a run learns by heart."""


class DiagnosisError(MyXTTSError):
    """There is nothing to diagnose; the message says what is missing."""


def diagnose_convergence(run: Path) -> list[Finding]:
    """Findings on a run's folder (or one of its checkpoints), good ones included, in a fixed order.

    Raises:
        DiagnosisError: there is no history with a log line.
        CheckpointError: the last checkpoint is damaged.
    """
    if run.name.startswith("step-"):
        run = run.parent.parent
    path = run / "history.jsonl"
    if not path.is_file():
        raise DiagnosisError(f"{path}: no history here; give the output folder of `myxtts train`")
    records = read_history(path)
    logged = [line for line in records if "train/objective" in line]
    if not logged:
        raise DiagnosisError(f"{path}: no step is logged yet; train for training.log_interval steps first")
    return [
        _finite(records),
        _recovered(records),
        _falling(logged),
        _steady(logged),
        _gradients(logged),
        _aligned(records),
        _general(records),
        _weights(run),
    ]


def _finite(records: list[dict[str, Any]]) -> Finding:
    skipped = [line for line in records if "skipped" in line]
    broken = [
        f"{name} at step {line['step']}"
        for line in records
        for name, value in line.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if not skipped and not broken:
        return Finding("losses are finite", "ok", f"{len(records)} records, none of them NaN or infinite")
    clips = sorted({clip for line in skipped for clip in line["skipped"]})
    evidence = f"{len(skipped)} steps skipped; not finite: {', '.join(broken[:3]) or 'no logged value'}"
    cure = f"look at clips {', '.join(clips[:5])}; then lower training.learning_rate or use float32"
    return Finding("losses are finite", "error", evidence, cure)


def _recovered(records: list[dict[str, Any]]) -> Finding:
    back = [line["step"] for line in records if "went_back_to" in line]
    stopped = [line["stopped"] for line in records if "stopped" in line]
    if not back and not stopped:
        return Finding("the run never had to go back", "ok", "no roll-back")
    evidence = f"went back at steps {', '.join(map(str, back))}" + ("; then it stopped" if stopped else "")
    cure = "lower training.learning_rate (`myxtts train --find-lr` proposes one) or training.gradient_clip_norm"
    return Finding("the run never had to go back", "error" if stopped else "warning", evidence, cure)


def _falling(logged: list[dict[str, Any]]) -> Finding:
    losses = [line["train/objective"] for line in logged]
    third = len(losses) // 3
    if third < 3:
        return Finding("the loss falls", "ok", f"{len(losses)} log lines are too few to tell")
    middle, last = fmean(losses[third : 2 * third]), fmean(losses[-third:])
    evidence = f"loss {losses[0]:.3g} at first, {middle:.3g} in the middle third, {last:.3g} in the last"
    if last < (1 - FLAT) * middle:
        return Finding("the loss falls", "ok", evidence)
    cure = "--optimization-level plateau_breaker, or a rate that `myxtts train --find-lr` proposes"
    return Finding("the loss falls", "warning", f"{evidence}: it stands still", cure)


def _steady(logged: list[dict[str, Any]]) -> Finding:
    losses = [line["train/objective"] for line in logged][len(logged) // 3 :]
    changes = [abs(b - a) / max(abs(a), 1e-9) for a, b in pairwise(losses)]
    change = fmean(changes) if changes else 0.0
    evidence = f"{100 * change:.1f} % mean change between log lines"
    if change < UNSTEADY:
        return Finding("the loss is steady", "ok", evidence)
    return Finding("the loss is steady", "warning", f"{evidence}: it oscillates", "halve training.learning_rate")


def _gradients(logged: list[dict[str, Any]]) -> Finding:
    norms = [line["train/gradient_norm"] for line in logged]
    elements = fmean(line["train/clipped_element_share"] for line in logged)
    evidence = f"norm {norms[-1]:.3g} at last, {100 * elements:.2g} % of elements clipped"
    if not math.isfinite(norms[-1]) or elements > 0.05:
        return Finding("gradients are in range", "warning", f"{evidence}: they explode", "lower training.learning_rate")
    if norms[-1] < 1e-6:
        return Finding("gradients are in range", "warning", f"{evidence}: they vanish", "raise training.learning_rate")
    return Finding("gradients are in range", "ok", evidence)


def _aligned(records: list[dict[str, Any]]) -> Finding:
    values = [line["validation/sharpness"] for line in records if "validation/sharpness" in line]
    if not values:
        return Finding("text and audio match", "warning", "no validation is logged", "set training.enable_evaluation")
    evidence = f"the alignment gives each frame's best token a share of {values[-1]:.2f}"
    if values[-1] >= BLURRED:
        return Finding("text and audio match", "ok", evidence)
    cure = "train longer, raise training.aligner_learning_rate_scale, or check the transcripts"
    return Finding("text and audio match", "warning", evidence, cure)


def _general(records: list[dict[str, Any]]) -> Finding:
    errors = [(line["validation/mel"], line["step"]) for line in records if "validation/mel" in line]
    if not errors:
        return Finding("it holds on unseen speech", "warning", "no validation is logged", "set enable_evaluation")
    (best, at), (last, _) = min(errors), errors[-1]
    evidence = f"validation mel error {last:.3f}, best {best:.3f} at step {at}"
    if last <= WORSE * best:
        return Finding("it holds on unseen speech", "ok", evidence)
    cure = "add data, set training.exported_checkpoint to best, or raise model.dropout"
    return Finding("it holds on unseen speech", "warning", f"{evidence}: it learns by heart", cure)


def _weights(run: Path) -> Finding:
    found = list_checkpoints(run / "checkpoints")
    if not found:
        return Finding("weights are sound", "warning", "no checkpoint", "train for training.checkpoint_interval steps")
    model = load_checkpoint(found[-1].path).model
    sick = [name for name, tensor in model.items() if not bool(tensor.isfinite().all())]
    evidence = f"{len(model)} tensors of {found[-1].path.name}"
    if not sick:
        return Finding("weights are sound", "ok", f"{evidence}, all finite")
    cure = "go on from an earlier checkpoint: remove this folder and run the same command again"
    return Finding("weights are sound", "error", f"{evidence}; not finite: {', '.join(sick[:3])}", cure)
