import json
import os
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from components.state import State
from model.errors import MyXTTSError
from pipelines.cli import main as cli
from pipelines.cli.options import load_settings, parse_assignments
from pipelines.run_records import RunRecord, StepRecord, all_runs


def program(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "pipelines.cli.main", *arguments], capture_output=True, text=True)


def test_help_is_quick():
    """In CPU time, which other work on the machine hardly changes; importing torch alone takes more."""
    assert min(_cpu_seconds_of_help() for _ in range(3)) < 0.8


def _cpu_seconds_of_help() -> float:
    before = os.times()
    program("--help")
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])  # of ended children


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_is_there_and_says_what_it_does(name):
    context = click.Context(cli.program)
    command = cli.program.get_command(context, name)
    answer = CliRunner().invoke(command, ["--help"])
    assert answer.exit_code == 0
    assert command.help


def test_unknown_commands_are_usage_errors():
    done = program("sing")
    assert done.returncode == 2
    assert "No such command" in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MyXTTSError("audio.flac: truncated; record it again"), 2, "myxtts: audio.flac: truncated"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.UsageError("no such option"), 2, "no such option"),
        (SystemExit(1), 1, ""),
    ],
)
def test_errors_end_in_one_line_and_the_documented_status(error, status, said, monkeypatch, capsys):
    @click.command()
    def failing():
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: failing)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run"])
    output = capsys.readouterr().err
    assert ended.value.code == status
    assert said in output
    assert "Traceback" not in output


def test_a_defect_keeps_its_traceback(monkeypatch):
    @click.command()
    def failing():
        raise ZeroDivisionError

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: failing)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run"])


def test_outside_of_a_project_the_error_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.delenv("MYXTTS_STATE", raising=False)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli.main", "pipeline", "list"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("myxtts: ")
    assert "dvc.yaml" in done.stderr


def test_settings_are_found_from_any_folder_of_the_project(tmp_path, monkeypatch):
    inner = tmp_path / "notebooks" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "params.yaml").write_text("seed: 7\ncorpus: {path: recordings}\n")
    monkeypatch.chdir(inner)
    assert load_settings().config.seed == 1234  # no project yet
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    found = load_settings()
    assert found.config.seed == 7
    assert found.origins["seed"] == str(tmp_path / "params.yaml")
    assert found.config.corpus.path == str(tmp_path / "recordings")  # where the data stages read it
    assert load_settings(assignments=("corpus.path=here",)).config.corpus.path == "here"
    (inner / "params.yaml").write_text("seed: 8\n")
    assert load_settings().config.seed == 8


def test_warnings_of_libraries_end_no_command_where_python_makes_them_errors():
    code = (
        "import warnings; from pipelines.cli import main as m\n"
        "m.program.main = lambda **_: warnings.warn('of a library', DeprecationWarning); m.main([])"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "of a library" in done.stderr


def test_assignments_are_yaml_values():
    assert parse_assignments(("a.b=3", "c=x=y", "d=true")) == {"a.b": 3, "c": "x=y", "d": True}
    with pytest.raises(click.UsageError, match="KEY=VALUE"):
        parse_assignments(("a",))


def test_a_run_whose_process_is_gone_counts_as_interrupted(tmp_path):
    state = State(tmp_path)
    for pid, name in ((999999999, "run-1"), (os.getpid(), "run-2")):
        folder = state.folder("runs", f"{name}-{pid}")
        RunRecord(id=folder.name, folder=folder, arguments={"name": "m"}, started=time.time()).save()
    folder = state.folder("runs", f"run-0-{os.getpid()}")
    RunRecord(id=folder.name, folder=folder, arguments={"name": "m"}, started=1.0).save()  # another process
    assert [record.state for record in all_runs(state)] == ["running", "interrupted", "interrupted"]
    environment = {**os.environ, "MYXTTS_STATE": str(tmp_path)}
    command = [sys.executable, "-m", "pipelines.cli.main", "pipeline", "list", "--json"]
    listed = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert [item["state"] for item in json.loads(listed.stdout)] == ["running", "interrupted", "interrupted"]


@pytest.mark.parametrize(("weight", "status"), [("2.5", 0), ("6", 1), ("40", 1)])
@pytest.mark.parametrize("command", [("config", "check"), ("diagnose", "config")])
def test_both_checks_of_the_settings_exit_1_on_any_finding(command, weight, status, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--params", os.devnull, "--mel-loss-weight", weight])
    assert ended.value.code == status


def test_a_scheduler_that_ends_the_program_interrupts_it():
    code = (
        "import os, signal; from pipelines.cli import main as m; m.program.main = lambda **_: os.kill(os.getpid(), 15)"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}; m.main([])"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "myxtts: interrupted\n")


@pytest.mark.parametrize("flag", ["--warmup-steps", "--disable-compile"])
def test_a_setting_without_a_flag_is_named_with_the_option_that_changes_it(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", flag, "3"])
    assert ended.value.code == 2
    name = {"--warmup-steps": "training.warmup_steps", "--disable-compile": "training.enable_compile"}[flag]
    assert f"--set {name}=VALUE" in capsys.readouterr().err


def test_a_running_run_shows_its_time_and_progress(tmp_path, monkeypatch, capsys):
    state = State(tmp_path)
    folder = state.folder("runs", f"run-1-{os.getpid()}")
    record = RunRecord(id=folder.name, folder=folder, arguments={"name": "m"}, started=time.time() - 90)
    record.steps["preprocess"] = StepRecord(state="done", started=record.started, seconds=20.0)
    record.steps["train"] = StepRecord(state="running", started=time.time() - 60, done=120, total=500)
    record.save()
    monkeypatch.setattr("pipelines.run_records.process_start", lambda _: record.started - 1)
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path))
    (found,) = all_runs(state)
    assert found.seconds == pytest.approx(90, abs=5)
    assert found.steps["train"].seconds == pytest.approx(60, abs=5)
    for command in ("list", "status"):
        with pytest.raises(SystemExit):
            cli.main(["pipeline", command])
        assert "120/500 (24 %)" in capsys.readouterr().out


def test_a_killed_run_shows_the_time_until_its_last_record(tmp_path):
    state = State(tmp_path)
    folder = state.folder("runs", "run-1-999999999")
    RunRecord(id=folder.name, folder=folder, arguments={"name": "m"}, started=time.time() - 30).save()
    os.utime(folder / "run.json", (time.time() - 20, time.time() - 20))
    (found,) = all_runs(state)
    assert (found.state, found.seconds) == ("interrupted", pytest.approx(10, abs=5))


def test_a_log_begins_with_what_the_steps_report(tmp_path, monkeypatch, capsys):
    state = State(tmp_path)
    folder = state.folder("runs", f"run-1-{os.getpid()}")
    RunRecord(id=folder.name, folder=folder, arguments={"name": "m"}, started=time.time()).save()
    log = (
        "19:54:54 - INFO - Pipeline started\n"
        '    ::step:: {"step": "train", "state": "started"}\n'
        '    ::step:: {"step": "train", "state": "progress", "done": 1, "total": 9}\n'
        "    a line of a library\n"
        '    ::step:: {"step": "train", "state": "failed", "seconds": 3.21, "error": "disk full; free some space"}\n'
    )
    (folder / "log.txt").write_text(log)
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path))
    with pytest.raises(SystemExit):
        cli.main(["pipeline", "logs"])
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines()[:2]] == [
        ["train", "started"],
        ["train", "failed", "3.2", "s", *["disk", "full;", "free", "some", "space"]],
    ]
    assert printed.endswith(log)
