"""Settings of runs that a test can afford."""

import pytest

from model.config.resolution import resolve


@pytest.fixture
def config(small_settings):
    """Function: keys of section `training` -> settings of a small run."""

    def build(**training):
        return resolve(None, None, {**small_settings, **{f"training.{k}": v for k, v in training.items()}}).config

    return build
