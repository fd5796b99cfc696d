"""Metrics of a log line."""

from types import SimpleNamespace

import pytest
import torch

from model.training import step_metrics
from model.training.step_metrics import StepMetrics


def test_speed_is_that_of_all_processes(monkeypatch):
    clock = iter([0.0, 2.0, 2.0] * 2)
    monkeypatch.setattr(step_metrics.time, "monotonic", lambda: next(clock))
    batch = SimpleNamespace(mel_lengths=torch.tensor([300, 100]), ids=torch.zeros(2, 5, 2), mel=torch.zeros(2, 300, 80))
    clipping = SimpleNamespace(norm=1.0, clipped_norm=False, clipped_elements=0.0)
    loss = SimpleNamespace(terms={"mel": 0.5}, total=0.5)
    step = SimpleNamespace(loss=loss, weights={"mel": 1.0}, objective=0.5, learning_rate=1e-3, clipping=clipping)
    for processes, speed in ((1, 200.0), (4, 800.0)):
        metrics = StepMetrics(count_graphs=False, processes=processes)
        metrics.add(batch, step)
        assert metrics.lap()["train/frames_per_second"] == pytest.approx(speed)
