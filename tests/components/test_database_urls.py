import socket
from pathlib import Path

import pytest

from components import tracking
from components.database_urls import DatabaseError, absolute_url, make_absolute, require_server
from components.studies.storage import storage


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


def test_a_database_server_that_does_not_answer_is_named_at_once_with_its_variable(monkeypatch, state):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"postgresql+pg8000://user:hunter2@127.0.0.1:{port}/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with pytest.raises(DatabaseError, match=rf"127\.0\.0\.1:{port} does not answer .*MLFLOW_TRACKING_URI") as caught:
        tracking.client(state)
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("MYXTTS_STUDY_STORAGE", url)
    with pytest.raises(DatabaseError, match="MYXTTS_STUDY_STORAGE"):
        storage(state)


def test_only_servers_that_answer_and_addresses_without_one_pass(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        require_server(f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/d", "V")
    for url in ("sqlite:///x.db", "http://127.0.0.1:1", "postgresql:///local", ""):
        require_server(url, "V")
    with pytest.raises(DatabaseError, match="V is no address"):
        require_server("postgresql://u@host:port/d", "V")
