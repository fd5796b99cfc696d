"""Diagnosis of convergence: findings from the history and the last checkpoint of a run, with evidence and fix."""

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
"""Smallest relative decrease of the loss from the middle third of a run to the last one; below it, it stagnates."""
UNSTEADY = 0.25
"""Mean relative change of the loss between two log lines above which it oscillates."""
BLURRED = 0.6
"""Mean over frames of the largest alignment share below which text and audio do not match."""
OVERFITTING = 1.1
"""Ratio of the validation error to its best value above which a run overfits."""


class DiagnosisError(MyXTTSError):
    """There is nothing to diagnose; the message says what is missing and how to get it."""


def diagnose_convergence(run: Path) -> list[Finding]:
    """Diagnoses a run, given its folder or one of its checkpoints.

    Returns:
        All findings, passed ones included, in a fixed order.

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
        return Finding.ok("losses are finite", f"{len(records)} records, none of them NaN or infinite")
    clips = sorted({clip for line in skipped for clip in line["skipped"]})
    evidence = f"{len(skipped)} steps skipped; not finite: {', '.join(broken[:3]) or 'no logged value'}"
    fix = f"check clips {', '.join(clips[:5])}; then lower training.learning_rate or use float32"
    return Finding.error("losses are finite", evidence, fix)


def _recovered(records: list[dict[str, Any]]) -> Finding:
    rollbacks = [line["step"] for line in records if "rolled_back_to" in line]
    stopped = [line["stopped"] for line in records if "stopped" in line]
    if not rollbacks and not stopped:
        return Finding.ok("the run was never rolled back", "no rollback")
    evidence = f"rolled back at steps {', '.join(map(str, rollbacks))}" + ("; then it stopped" if stopped else "")
    fix = "lower training.learning_rate (`myxtts train --find-lr` proposes one) or training.gradient_clip_norm"
    finding = Finding.error if stopped else Finding.warning
    return finding("the run was never rolled back", evidence, fix)


def _falling(logged: list[dict[str, Any]]) -> Finding:
    losses = [line["train/objective"] for line in logged]
    third = len(losses) // 3
    if third < 3:
        return Finding.ok("the loss falls", f"{len(losses)} log lines are too few to tell")
    middle, last = fmean(losses[third : 2 * third]), fmean(losses[-third:])
    evidence = f"loss {losses[0]:.3g} at the start, {middle:.3g} in the middle third, {last:.3g} in the last"
    if last < (1 - FLAT) * middle:
        return Finding.ok("the loss falls", evidence)
    fix = "--optimization-level plateau_breaker, or the learning rate that `myxtts train --find-lr` proposes"
    return Finding.warning("the loss falls", f"{evidence}: it stagnates", fix)


def _steady(logged: list[dict[str, Any]]) -> Finding:
    losses = [line["train/objective"] for line in logged][len(logged) // 3 :]
    changes = [abs(b - a) / max(abs(a), 1e-9) for a, b in pairwise(losses)]
    change = fmean(changes) if changes else 0.0
    evidence = f"{100 * change:.1f} % mean change between log lines"
    if change < UNSTEADY:
        return Finding.ok("the loss is steady", evidence)
    return Finding.warning("the loss is steady", f"{evidence}: it oscillates", "halve training.learning_rate")


def _gradients(logged: list[dict[str, Any]]) -> Finding:
    norms = [line["train/gradient_norm"] for line in logged]
    elements = fmean(line["train/clipped_element_share"] for line in logged)
    evidence = f"norm {norms[-1]:.3g} at the end, {100 * elements:.2g} % of elements clipped"
    if not math.isfinite(norms[-1]) or elements > 0.05:
        return Finding.warning("gradients are in range", f"{evidence}: they explode", "lower training.learning_rate")
    if norms[-1] < 1e-6:
        return Finding.warning("gradients are in range", f"{evidence}: they vanish", "raise training.learning_rate")
    return Finding.ok("gradients are in range", evidence)


def _aligned(records: list[dict[str, Any]]) -> Finding:
    values = [line["validation/sharpness"] for line in records if "validation/sharpness" in line]
    if not values:
        return Finding.warning("text and audio match", "no validation is logged", "set training.enable_evaluation")
    evidence = f"mean over frames of the largest alignment share: {values[-1]:.2f}"
    if values[-1] >= BLURRED:
        return Finding.ok("text and audio match", evidence)
    fix = "train longer, raise training.aligner_learning_rate_scale, or check the transcripts"
    return Finding.warning("text and audio match", evidence, fix)


def _general(records: list[dict[str, Any]]) -> Finding:
    errors = [(line["validation/mel"], line["step"]) for line in records if "validation/mel" in line]
    if not errors:
        return Finding.warning("the run generalizes", "no validation is logged", "set training.enable_evaluation")
    (best, at), (last, _) = min(errors), errors[-1]
    evidence = f"validation mel error {last:.3f}, best {best:.3f} at step {at}"
    if last <= OVERFITTING * best:
        return Finding.ok("the run generalizes", evidence)
    fix = "add data, set training.exported_checkpoint to best, or raise model.dropout"
    return Finding.warning("the run generalizes", f"{evidence}: it overfits", fix)


def _weights(run: Path) -> Finding:
    found = list_checkpoints(run / "checkpoints")
    if not found:
        return Finding.warning("weights are finite", "no checkpoint", "train for training.checkpoint_interval steps")
    model = load_checkpoint(found[-1].path).model
    broken = [name for name, tensor in model.items() if not bool(tensor.isfinite().all())]
    evidence = f"{len(model)} tensors of {found[-1].path.name}"
    if not broken:
        return Finding.ok("weights are finite", f"{evidence}, all finite")
    fix = "resume from an earlier checkpoint: remove this folder and run the same command again"
    return Finding.error("weights are finite", f"{evidence}; not finite: {', '.join(broken[:3])}", fix)
