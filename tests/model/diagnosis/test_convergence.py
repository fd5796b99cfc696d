"""Diagnosis of convergence: a good run passes, each fault is found, and NaN is never healthy."""

import json
import math

import pytest
import torch

from model.diagnosis.convergence import DiagnosisError, diagnose_convergence
from model.loop.checkpoints import Checkpoint, save_checkpoint


@pytest.fixture
def run(tmp_path):
    """Returns a function that writes a run of 30 log lines, with changed lines, extra records and weights."""

    def build(change=lambda number: {}, extra=(), weight=1.0):
        lines = []
        for number in range(30):
            step = 10 * (number + 1)
            line = {"step": step, "train/objective": 8 * 0.95**number, "train/gradient_norm": 0.8}
            lines.append({**line, "train/clipped_element_share": 0.0, **change(number)})
        lines.append({"step": 300, "validation/mel": 0.7, "validation/sharpness": 0.9})
        (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, *extra]))
        tensors = {"weight": torch.full((3,), weight)}
        optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}
        rng = {"cpu": torch.zeros(1)}
        checkpoint = Checkpoint(step=300, model=tensors, ema=tensors, optimizer=optimizer, rng=rng, extra={})
        save_checkpoint(tmp_path / "checkpoints", checkpoint, keep_top_k=1)
        return tmp_path

    return build


def faults(folder) -> dict[str, str]:
    return {item.check: item.severity for item in diagnose_convergence(folder) if item.severity != "ok"}


def test_a_good_run_passes_from_its_folder_and_from_a_checkpoint(run):
    folder = run()
    assert faults(folder) == {}
    assert faults(folder / "checkpoints" / "step-00000300") == {}


@pytest.mark.parametrize(
    ("check", "severity", "what"),
    [
        ("losses are finite", "error", {"change": lambda n: {"train/mel": math.nan} if n == 7 else {}}),
        ("losses are finite", "error", {"extra": [{"step": 310, "skipped": ["clip-3"]}]}),
        ("the run was never rolled back", "warning", {"extra": [{"step": 310, "rolled_back_to": 300}]}),
        ("the run was never rolled back", "error", {"extra": [{"step": 310, "stopped": "no"}]}),
        ("the loss falls", "warning", {"change": lambda n: {"train/objective": 2.6}}),
        ("the loss is steady", "warning", {"change": lambda n: {"train/objective": (9 - n / 9) * (1 + n % 2)}}),
        ("gradients are in range", "warning", {"change": lambda n: {"train/clipped_element_share": 0.2}}),
        ("gradients are in range", "warning", {"change": lambda n: {"train/gradient_norm": 1e-9}}),
        ("text and audio match", "warning", {"extra": [{"step": 310, "validation/sharpness": 0.3}]}),
        ("the run generalizes", "warning", {"extra": [{"step": 310, "validation/mel": 0.9}]}),
        ("weights are finite", "error", {"weight": math.nan}),
    ],
)
def test_each_fault_is_found(run, check, severity, what):
    assert faults(run(**what)) == {check: severity}


def test_nothing_to_diagnose_is_an_error_not_health(tmp_path):
    with pytest.raises(DiagnosisError, match="no history here"):
        diagnose_convergence(tmp_path)
    (tmp_path / "history.jsonl").write_text("")
    with pytest.raises(DiagnosisError, match="no step is logged"):
        diagnose_convergence(tmp_path)
