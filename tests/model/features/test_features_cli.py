"""`myxtts features`: builds, describes and verifies stores; the exit status is 1 on a finding."""

import json

import pytest
from click.testing import CliRunner

from pipelines.cli.features import features


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no params.yaml of the project
    return lambda *arguments: CliRunner().invoke(features, [str(item) for item in arguments])


def test_a_built_store_verifies_and_describes_itself(run, small_corpus, tmp_path):
    built = run("build", "--corpus", small_corpus, "--output", tmp_path / "store", "--json")
    assert built.exit_code == 0, built.output
    numbers = json.loads(built.output)
    assert numbers["clips"] == 25
    assert numbers["splits"] == {"test": 4, "train": 17, "validation": 4}
    verified = run("verify", tmp_path / "store", "--json")
    assert verified.exit_code == 0
    assert json.loads(verified.output) == numbers


def test_findings_exit_with_1_and_name_what_is_wrong(run, small_features, tmp_path):
    other = run("verify", small_features, "--set", "audio.hop_length=128")
    assert other.exit_code == 1
    assert "audio.hop_length 256 there, 128 here" in other.output
    missing = run("verify", tmp_path / "none", "--json")
    assert missing.exit_code == 1
    assert "myxtts features build" in json.loads(missing.output)["finding"]


def test_statistics_are_shown_per_speaker(run, small_features):
    statistics = json.loads(run("stats", small_features, "--json").output)
    assert set(statistics["speakers"]) == {"anna", "bob", "lone", "unheard"}
    assert statistics["speakers"]["anna"]["clips"] == 11
    lines = {line.split()[0]: line.split() for line in run("stats", small_features).output.splitlines()[2:]}
    assert float(lines["anna"][3]) == pytest.approx(210, rel=0.1)
    assert float(lines["bob"][3]) == pytest.approx(110, rel=0.1)


def test_a_remote_needs_the_hash_of_what_to_read(run):
    result = run("build", "--from-remote", "s3://bucket/dvc")
    assert result.exit_code == 2
    assert "--data-hash" in result.output
