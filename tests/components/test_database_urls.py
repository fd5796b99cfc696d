from pathlib import Path

import pytest

from components import tracking
from components.database_urls import absolute_url, make_absolute


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:///runs/mlflow.db?timeout=5", "sqlite:///{here}/runs/mlflow.db?timeout=5"),
        ("sqlite+pysqlite:///study.db", "sqlite+pysqlite:///{here}/study.db"),
        ("sqlite:////var/mlflow.db", "sqlite:////var/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("./mlruns", "{here}/mlruns"),
        ("file:mlruns", "file://{here}/mlruns"),
        ("file:///var/mlruns", "file:///var/mlruns"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("postgresql+pg8000://u:p@db/studies", "postgresql+pg8000://u:p@db/studies"),
        ("databricks", "databricks"),
    ],
)
def test_only_files_and_folders_become_absolute(url, absolute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_url(url) == absolute.format(here=tmp_path)
    assert absolute_url(absolute_url(url)) == absolute_url(url)


def test_a_relative_database_is_one_file_for_a_command_and_for_a_step_in_another_folder(state, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    environment = {"MLFLOW_TRACKING_URI": "sqlite:///shared.db", "HOME": "/root"}
    make_absolute(environment)
    assert environment["HOME"] == "/root"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment["MLFLOW_TRACKING_URI"])
    made = tracking.client(state).create_experiment("ours")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert tracking.client(state).get_experiment_by_name("ours").experiment_id == made
    assert [path.name for path in Path(tmp_path).rglob("shared.db")] == ["shared.db"]
