"""Settings of small runs."""

from collections.abc import Iterator

import pytest

from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.training import trainer, validation


@pytest.fixture(autouse=True, scope="module")
def without_previews() -> Iterator[None]:
    """Trainings write no previews, which takes longer than all steps of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_previews", lambda model, store, config, output, step: [])
        yield


@pytest.fixture
def previews(monkeypatch) -> None:
    """Trainings write previews, as they do outside of tests."""
    monkeypatch.setattr(trainer, "write_previews", validation.write_previews)


@pytest.fixture(scope="session")
def config(small_settings):
    """Returns a function from keys of section `training`, or dotted keys, to the settings of a small run."""

    def build(**training):
        changes = {key if "." in key else f"training.{key}": value for key, value in training.items()}
        return TrainSettings.of(resolve(None, None, {**small_settings, **changes}).config)

    return build
