"""The fingerprint of a training, which decides whether a run may be resumed."""

from types import SimpleNamespace

import pytest
from other_values import keys, with_another

from model.config.resolution import resolve
from model.config.schema import Config
from model.training.state import run_fingerprint

SETTINGS = resolve(
    None,
    None,
    {"seed": 77, "model.use_forward_attention": True, "model.use_pretrained_speaker_encoder": False},
).config
"""Settings under which every other setting of model and training can be changed alone."""
FIXED = {"model.use_duration_predictor"}
STORE = SimpleNamespace(content_hash="features")


def unnoticed(*sections: str) -> list[str]:
    """Returns the settings whose change does not change the fingerprint."""
    before = run_fingerprint(SETTINGS, STORE)
    settings = (key for key in keys(SETTINGS, *sections) if key not in FIXED)
    return [key for key in settings if run_fingerprint(with_another(SETTINGS, key), STORE) == before]


def test_other_features_are_another_run():
    assert run_fingerprint(SETTINGS, SimpleNamespace(content_hash="others")) != run_fingerprint(SETTINGS, STORE)


@pytest.mark.parametrize("section", ["seed", "model", "loss"])
def test_every_setting_of_the_model_and_its_losses_is_in_the_fingerprint(section):
    assert unnoticed(section) == []


def test_training_settings_outside_the_fingerprint_are_those_without_effect_on_weights():
    assert sorted(unnoticed("training")) == [
        f"training.{name}"
        for name in (
            "base_interpolation",
            "buffer_size",
            "checkpoint_interval",
            "data_gpu",
            "device",
            "enable_memory_isolation",
            "exported_checkpoint",
            "keep_speakers",
            "keep_top_k",
            "log_interval",
            "model_gpu",
            "num_threads",
            "num_workers",
            "start_from",
            "start_from_sha256",
            "variance_restoration",
        )
    ]


@pytest.mark.parametrize("section", ["optimization_level", "split", "evaluation", "registry", "study"])
def test_settings_of_other_steps_are_not_in_the_fingerprint(section):
    assert unnoticed(section) == keys(Config(), section)
