import errno
import json
import multiprocessing
from pathlib import Path

import pytest

from components.resolve_data.run import run as resolve_data
from components.state import MARKER, State, StateError, read_json, write_json


@pytest.fixture(autouse=True)
def _unmoved(monkeypatch):
    monkeypatch.delenv("MYXTTS_STATE", raising=False)


def test_state_lies_in_the_nearest_project(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert State.locate(tmp_path / "a" / "b").root == tmp_path / ".myxtts"


def test_a_project_inside_a_state_uses_that_state(tmp_path):
    inner = tmp_path / "projects" / "kathleen"
    inner.mkdir(parents=True)
    (inner / "dvc.yaml").touch()
    (tmp_path / MARKER).touch()
    assert State.locate(inner).root == tmp_path


def test_a_state_that_this_user_cannot_write_to_is_named_with_the_fix(tmp_path, monkeypatch):
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path))
    monkeypatch.setattr(Path, "touch", refuse)  # root, who may run the tests, can write everywhere
    with pytest.raises(StateError, match=rf"user \d+ cannot write to .*{tmp_path.name}; .*state-owner\.example\.yaml"):
        resolve_data("0" * 32 + ".dir", "s3://bucket/dvc")


def test_the_variable_moves_the_state_and_makes_it_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYXTTS_STATE", "elsewhere")
    assert State.locate().root == tmp_path / "elsewhere"


def test_outside_of_projects_nothing_is_written_beside_the_caller(tmp_path):
    with pytest.raises(StateError, match=r"dvc\.yaml.*MYXTTS_STATE"):
        State.locate(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_results_of_different_kinds_and_keys_lie_apart(tmp_path):
    state = State(tmp_path)
    kinds = (state.data, state.features, state.training, state.vocoder, state.evaluation, state.gate)
    folders = {kind(key) for kind in kinds for key in ("a" * 16, "b" * 16)}
    assert len(folders) == 2 * len(kinds)
    assert all(folder.is_relative_to(tmp_path) for folder in folders)
    assert state.data("c" * 32 + ".dir").name == "c" * 32


def test_the_folder_is_private(tmp_path):
    state = State(tmp_path / "s").prepare()
    assert state.root.stat().st_mode & 0o077 == 0


def test_json_is_written_whole_and_damage_is_named(tmp_path):
    path = write_json(tmp_path / "deep" / "x.json", {"b": 1})
    assert read_json(path) == {"b": 1}
    assert [item.name for item in path.parent.iterdir()] == ["x.json"]
    path.write_text(json.dumps({"b": 1})[:-1])
    with pytest.raises(StateError, match=r"x\.json: Invalid JSON"):
        read_json(path)
    with pytest.raises(StateError, match="missing"):
        read_json(tmp_path / "none.json")


def _count_up(root: str) -> None:
    state, counter = State(Path(root)), Path(root) / "counter"
    for _ in range(50):
        with state.lock("counter"):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_a_lock_lets_one_process_in_at_a_time(tmp_path):
    (tmp_path / "counter").write_text("0")
    workers = [multiprocessing.get_context("fork").Process(target=_count_up, args=(str(tmp_path),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "counter").read_text() == "150"
