"""`myxtts diagnose` on generated features: findings with evidence and fix, as text and JSON, and exit codes."""

import json
import time

import pytest
from click.testing import CliRunner

from model.diagnosis import gpu
from model.features.loader import Loader
from pipelines.cli.main import program


@pytest.fixture
def run(generated_features):
    """Returns a function from command and flags to exit code and output."""

    def invoke(command: str, *flags: str):
        arguments = ["diagnose", command, "--features", str(generated_features), "--model-size", "xtiny", *flags]
        answer = CliRunner().invoke(program, arguments, standalone_mode=False)
        return answer.return_value, answer.stdout

    return invoke


STEPS = ("--profile-steps", "4", "--set", "training.warmup_steps=1", "--set", "training.num_shape_buckets=2")


def test_shapes_and_data_of_a_healthy_run_are_fine(run, monkeypatch):
    monkeypatch.setattr(gpu, "SLOW_DATA", 1.0)  # steps of this model take no longer than a batch
    code, output = run("gpu", *STEPS, "--enable-static-shapes")
    assert code == 0
    assert "backward" in output
    assert "ok       shapes are few: " in output
    assert "of a step waits for data" in output


def test_many_shapes_and_slow_data_are_found_with_their_fixes(run, monkeypatch):
    load = Loader._load

    def slow(*arguments):
        time.sleep(0.1)
        return load(*arguments)

    monkeypatch.setattr(Loader, "_load", slow)
    code, output = run("gpu", *STEPS, "--batch-size", "2", "--buffer-size", "0", "--json")
    assert code == 1
    found = {item["check"]: item for item in json.loads(output)}
    assert found["training does not wait for data"]["severity"] == "warning"
    assert "buffer_size" in found["training does not wait for data"]["fix"]
    assert found["shapes are few"]["severity"] == "warning"
    assert "enable_static_shapes" in found["shapes are few"]["fix"]


def test_the_checklist_looks_at_the_features_too(run):
    code, output = run("config", "--json")
    found = {item["check"]: item["severity"] for item in json.loads(output)}
    assert found["the dataset is normalized"] == "ok"
    assert code == 0
    assert run("config", "--mel-loss-weight", "40")[0] == 1
