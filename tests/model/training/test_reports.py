"""What a run tells of itself."""

from types import SimpleNamespace

import pytest
import torch

from model.training import reports
from model.training.reports import Meter


def test_speed_is_that_of_all_processes(monkeypatch):
    clock = iter([0.0, 2.0, 2.0] * 2)
    monkeypatch.setattr(reports.time, "monotonic", lambda: next(clock))
    batch = SimpleNamespace(mel_lengths=torch.tensor([300, 100]), ids=torch.zeros(2, 5, 2), mel=torch.zeros(2, 300, 80))
    clipping = SimpleNamespace(norm=1.0, clipped_norm=False, clipped_elements=0.0)
    loss = SimpleNamespace(terms={"mel": 0.5}, total=0.5)
    step = SimpleNamespace(loss=loss, weights={"mel": 1.0}, objective=0.5, rate=1e-3, clipping=clipping)
    for processes, speed in ((1, 200.0), (4, 800.0)):
        meter = Meter(False, processes)
        meter.add(batch, step)
        assert meter.lap(step)["train/frames_per_second"] == pytest.approx(speed)
