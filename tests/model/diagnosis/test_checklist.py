"""The pre-training checklist: good settings pass, each known fault is found with its cure, dangerous ones block."""

import pytest

from model.config import resolve
from model.config.resolution import presets
from model.diagnosis.checklist import blocking, checklist


def findings(**overrides):
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    return {item.check: item for item in checklist(resolve(None, None, settings).config)}


@pytest.mark.parametrize("size", presets()[0])
@pytest.mark.parametrize("level", presets()[1])
def test_every_preset_passes(size, level):
    assert {item.severity for item in findings(model_size=size, optimization_level=level).values()} == {"ok"}


@pytest.mark.parametrize(
    ("check", "severity", "overrides"),
    [
        ("loss weights in range", "warning", {"loss__mel_loss_weight": 6.0}),
        ("loss weights in range", "error", {"loss__mel_loss_weight": 40.0}),
        ("loss weights in range", "warning", {"loss__mel_loss_weight": 40.0, "loss__allow_dangerous": True}),
        ("weight of the latent in range", "warning", {"loss__kl_loss_weight": 3.0}),
        ("weight of the latent in range", "error", {"loss__kl_loss_weight": 10.0}),
        ("batch fits the model size", "warning", {"training__batch_size": 64}),
        ("batch fits the model size", "warning", {"model_size": "big", "training__batch_size": 4}),
        ("learning rate fits the model size", "warning", {"training__learning_rate": 0.1}),
        ("learning rate fits the model size", "warning", {"training__learning_rate": 1e-6}),
        ("gradients are clipped", "warning", {"training__gradient_clip_norm": 1000.0}),
        ("the schedule reaches its full rate", "warning", {"training__warmup_steps": 1000}),
        ("alignment and durations are trained", "error", {"loss__duration_loss_weight": 0.0}),
    ],
)
def test_each_fault_is_found_with_its_cure(check, severity, overrides):
    found = findings(**overrides)
    assert found[check].severity == severity
    assert found[check].cure
    assert [item.check for item in blocking(list(found.values()))] == ([check] if severity == "error" else [])
