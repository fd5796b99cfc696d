"""The training step with its launchers: two processes of `torchrun` train the voice of one with twice the batch."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from step_records import step_inputs

from components.configure.parameters import step_settings
from components.contracts import TrainOutput
from components.launch import VARIABLE
from components.train import work
from components.train.run import run
from model.config.resolution import resolve
from model.config.training import TrainSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def inputs(tmp_path, generated_features) -> dict[str, str]:
    """Paths of the records that `resolve_data` and `preprocess` write."""
    return step_inputs(tmp_path, ("data", "features"), {"features.features": generated_features})


def trained(inputs: dict[str, str], small_settings: dict, **training) -> TrainOutput:
    plain = {"max_steps": 2, "evaluation_interval": 2, "ema_decay": 0.0, "use_mixed_precision": False, **training}
    still = {f"model.{name}": 0.0 for name in ("dropout", "predictor_dropout", "aligner_dropout")}
    config = resolve(None, None, {**small_settings, **still, **{f"training.{k}": v for k, v in plain.items()}}).config
    return run(**inputs, settings=step_settings(config)["train_settings"], experiment="test")


@pytest.mark.slow  # test_launch.py starts stand-ins with torchrun, test_accumulation.py compares gradients of processes
def test_two_processes_make_the_voice_that_one_makes(state, inputs, small_settings, monkeypatch):
    one = trained(inputs, small_settings, batch_size=8)
    monkeypatch.setenv(VARIABLE, json.dumps({"launch": {"launcher": "torchrun", "processes": 2}}))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    two = trained(inputs, small_settings, batch_size=4)
    assert one.training != two.training
    assert two.run_id  # the first process records, the other does not
    first, second = (load_file(item.voice / "model.safetensors") for item in (one, two))
    assert set(first) == set(second)
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_features_of_the_base_are_opened_where_they_are_rehearsed(
    state, generated_features, small_settings, tmp_path, monkeypatch, share
):
    asked = []
    monkeypatch.setattr(work, "is_first", lambda: False)
    monkeypatch.setattr(work, "base_folder", lambda settings, _: tmp_path / "base")
    monkeypatch.setattr(work, "base_features", lambda folder, _: asked.append(folder) or generated_features)

    def train(config, store, folder, logger, *, base, rehearsed, compare_speakers, data_license):
        asked.append(rehearsed and rehearsed.path)
        return SimpleNamespace(voice=base)

    monkeypatch.setattr(work, "train", train)
    training = {"training.start_from": str(tmp_path / "base"), "training.rehearsal": share}
    config = TrainSettings.of(resolve(None, None, {**small_settings, **training}).config)
    request = {
        "settings": config.to_json(),
        "features": str(generated_features),
        "folder": str(tmp_path),
        "license": "",
    }
    assert work.work(request) == {"voice": str(tmp_path / "base")}
    assert asked == ([tmp_path / "base", generated_features] if share else [None])
