"""Settings of small runs."""

import pytest

from model.config.resolution import resolve
from model.config.training import TrainSettings


@pytest.fixture(scope="session")
def config(small_settings):
    """Returns a function from keys of section `training` to the settings of a small run."""

    def build(**training):
        changes = {f"training.{key}": value for key, value in training.items()}
        return TrainSettings.of(resolve(None, None, {**small_settings, **changes}).config)

    return build
