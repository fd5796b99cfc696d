"""A whole run without doubles: generated speech, DVC, every step of the pipeline, MLflow, and synthesis."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import soundfile
import yaml
from toy_run import SETTINGS

from components.artifacts import META
from components.state import State
from pipelines.profiles import NOT_CACHED
from pipelines.run_records import RunRecord

pytestmark = pytest.mark.xdist_group("whole_run")  # one process makes what these tests share

ROOT = Path(__file__).parents[2]
NAME = "myxtts-toy-xtiny"


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> State:
    return State(tmp_path_factory.mktemp("whole") / "state")


def environment(state: State) -> dict[str, str]:
    dropped = ("MLFLOW_", "KUBERNETES_", "MYXTTS_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return {**kept, "MYXTTS_STATE": str(state.root)}


def options(**changes) -> list[str]:
    chosen = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]


def command(*arguments: str, **changes) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli.main", *arguments, *options(**changes)]


def run(state: State, **changes) -> subprocess.CompletedProcess:
    return subprocess.run(
        command("run", **changes), capture_output=True, text=True, cwd=ROOT, env=environment(state), timeout=300
    )


def newest(state: State) -> RunRecord:
    return RunRecord.load(max(state.runs.glob("run-*"), key=lambda path: path.stat().st_mtime))


def steps(state: State) -> dict[str, str]:
    return {name: step.state for name, step in newest(state).steps.items()}


@pytest.fixture
def ask(state, myxtts, monkeypatch) -> Callable[..., Any]:
    """Returns a function from arguments of `myxtts`, run in this process on the state of the runs, to its JSON."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MYXTTS_STATE", str(state.root))
    monkeypatch.chdir(ROOT)

    def answer(*arguments: str) -> Any:
        status, output, errors = myxtts(*arguments, "--json")
        assert status == 0, errors
        return json.loads(output)

    return answer


@pytest.fixture(scope="module")
def first(state) -> subprocess.CompletedProcess:
    """The first run, whose gate no voice of eight steps can pass."""
    return run(state, registry__max_mel_cepstral_distortion=0.1)


def test_a_failed_gate_promotes_nothing_but_shows_what_there_is(first, state, ask):
    assert first.returncode == 1, first.stdout + first.stderr
    assert "NOT PROMOTED" in first.stdout
    assert "mel cepstral distortion" in first.stdout
    assert re.search(r"(?m)^candidate +\S+-v1/1-en\.wav$", first.stdout)
    assert f"myxtts registry promote {NAME} 1 --force" in first.stdout
    assert "Traceback" not in first.stderr
    assert steps(state) == {**dict.fromkeys(newest(state).steps, "done"), "gate": "failed"}
    assert [(item["number"], item["aliases"]) for item in ask("registry", "list")] == [("1", ["candidate"])]


def times_of_change(state: State) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in state.root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def rewritten(first, state) -> set[Path]:
    """Files that the second run changed, relative to the state."""
    return set()


@pytest.fixture(scope="module")
def promoted(first, rewritten, state) -> subprocess.CompletedProcess:
    """The second run, with a threshold that the voice passes."""
    before = times_of_change(state)
    done = run(state)
    after = times_of_change(state)
    rewritten |= {path.relative_to(state.root) for path, time in before.items() if after.get(path, time) != time}
    return done


def test_another_threshold_runs_the_gate_alone_and_promotes(promoted, state):
    assert promoted.returncode == 0, promoted.stdout + promoted.stderr
    assert steps(state) == {step: "done" if step in NOT_CACHED else "cached" for step in newest(state).steps}
    assert f"{NAME} version 1 (is the champion)" in promoted.stdout


def test_the_summary_leads_to_speech_report_and_plot(promoted):
    found = dict(re.findall(r"(?m)^(speech|report|alignment|log) +(\S+)$", promoted.stdout))
    assert set(found) == {"speech", "report", "alignment", "log"}
    assert all(Path(path).is_file() for path in found.values())
    spoken = re.findall(r"\S+\.wav", promoted.stdout.split("report")[0])
    assert [Path(path).name for path in spoken] == [
        "1-en.wav",
        "2-en.wav",
        "3-en.wav",
        "4-fa.wav",
        "5-fa-en_1.wav",
    ]
    assert all(soundfile.info(path).duration > 0.1 for path in spoken)


def test_a_version_has_its_lineage(promoted, state, ask):
    shown = ask("registry", "show", NAME)
    tags = shown["tags"]
    lock = (state.root / "projects" / "toy" / "dvc.lock").read_text()
    assert tags["dvc.data"] in lock
    for key in (
        "git.sha",
        "git.dirty",
        "dvc.lock.sha256",
        "params.sha256",
        "kfp.run_id",
        "weights.sha256",
        "voice.sha256",
    ):
        assert tags[key], key
    assert shown["aliases"] == ["candidate", "champion"]
    artifacts = [path.suffix for path in (state.root / "mlartifacts").rglob("*") if path.is_file()]
    assert ".safetensors" in artifacts
    assert not {".pkl", ".pickle", ".pt", ".pth"} & set(artifacts)


CLONE = """
import sys
from pathlib import Path
import mlflow, pandas
from model.speaker_encoder import resemblyzer
resemblyzer.WHEELS = Path("nowhere")
from components.registry import Registry
from components.state import State
from pipelines.cli.synthesize import synthesize
address, spoken = f"models:/{sys.argv[1]}@champion", sys.argv[3]
synthesize(["--model", address, "--reference", sys.argv[2], "--output", spoken, "One two."], standalone_mode=False)
version = Registry(State.locate()).version(sys.argv[1], "champion")
voice = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.number}")
recording = Path(sys.argv[2]).read_bytes()
answer = voice.predict(pandas.DataFrame({"text": ["One two three."], "reference_wav": [recording]}))
print(answer["seconds"][0])
"""


def test_cloning_works_without_the_speaker_encoders_wheel_served_and_by_command(promoted, state, tmp_path):
    reference = next(state.root.glob("data/*/audio/*.flac"))  # what this voice says itself is refused as noise
    done = subprocess.run(
        [sys.executable, "-c", CLONE, NAME, str(reference), str(tmp_path / "spoken.wav")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(state),
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) > 0.1
    assert soundfile.info(tmp_path / "spoken.wav").duration > 0.1


def test_a_second_run_rewrites_no_result(promoted, rewritten):
    kept = {"data", "features", "training", "evaluations", "samples", "mlartifacts", "dvc-remote", "projects"}
    # Rewritten as they were (records of pushes, hashes of the stages' code, a file that MLflow adds to each download),
    # and the threshold in params.yaml.
    notes = {".dvc", "dvc.lock", "code", "params.yaml", "myxtts", META}
    assert rewritten  # the record of MLflow at least
    assert not [path for path in rewritten if path.parts[0] in kept and not notes & set(path.parts)]


def wait_until(condition, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trained_steps(state: State, beyond: int = 0) -> int:
    logs = sorted(state.runs.glob("run-*/log.txt"))
    found = re.findall(r'"done": (\d+)', logs[-1].read_text()) if logs else []
    return int(found[-1]) if found and int(found[-1]) > beyond else 0


def test_an_interrupted_training_leaves_no_process_and_resumes(promoted, state):
    """A changed training setting also shows here that nothing before training runs again."""
    reached = 0
    for attempt, program in enumerate((("run",), ("pipeline", "run"))):
        already = len(list(state.runs.glob("run-*")))
        long = command(*program, training__max_steps=100000, training__evaluation_interval=50000)
        process = subprocess.Popen(
            long, cwd=ROOT, env=environment(state), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda already=already: len(list(state.runs.glob("run-*"))) > already)
        wait_until(lambda reached=reached: trained_steps(state, beyond=reached))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert not living(state)
        record = newest(state)
        assert (record.state, record.steps["train"].state) == ("interrupted", "interrupted")
        assert {record.steps[name].state for name in ("resolve_data", "preprocess")} == {"cached"}
        log = (record.folder / "log.txt").read_text()
        start = int(re.search(r"steps (\d+) to 100000", log).group(1))
        assert (start > 0) == (attempt > 0)
        assert start >= reached
        reached = trained_steps(state)


def living(state: State) -> list[int]:
    """Returns the processes of this test's runs that still exist."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(state.root).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # ended meanwhile
    return found


STUDY = {"study__max_steps": 3, "study__min_alignment_sharpness": 0, "study__sampler": "random"}


@pytest.fixture(scope="module")
def studied(promoted, state) -> subprocess.CompletedProcess:
    """A study of two trials in two workers, and a training with the best settings."""
    arguments = ("study", "run", "small", "--trials", "2", "--workers", "2", "--then-train")
    return subprocess.run(
        command(*arguments, **STUDY), capture_output=True, text=True, cwd=ROOT, env=environment(state), timeout=600
    )


def test_a_studys_values_reach_the_real_trainer(studied, state, ask):
    assert studied.returncode == 0, studied.stdout + studied.stderr
    shown = ask("study", "show", "small")
    assert [trial["trial"] for trial in shown["trials"]] == [0, 1]
    baseline = shown["trials"][0]
    voice = state.root / "studies" / "small" / "trial-0" / "voice" / "voice.json"
    trained = json.loads(voice.read_text())["trained_with"]
    assert baseline["settings"]["loss.mel_loss_weight"] == trained["loss"]["mel_loss_weight"]
    assert baseline["settings"]["training.batch_size"] == trained["training"]["batch_size"]
    assert trained["training"]["max_steps"] == 12  # 3 steps of the largest batch (16) in batches of 4


def test_the_training_after_a_study_has_its_best_settings_and_the_version_names_study_and_trial(
    studied, state, ask, myxtts
):
    tags = ask("registry", "show", NAME)["tags"]
    _, text, _ = myxtts("study", "best", "small")
    page = (state.root / "studies" / "small" / "study.html").read_text()
    assert "<h1>Study small</h1>" in page
    assert tags["optuna.study"] == "small"
    assert text.startswith(f"# Study small, trial {tags['optuna.trial']}: mel ")
    assert yaml.safe_load(text)["training"]["batch_size"] in range(2, 17)
    assert newest(state).steps["gate"].state == "done"


def test_a_study_is_continued_by_its_name_alone(studied, state, ask):
    command = [sys.executable, "-m", "pipelines.cli.main", "study", "run", "small", "--trials", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(state))
    assert done.returncode == 0, done.stdout + done.stderr
    listed = ask("study", "list")
    assert [(item["name"], item["trials"], item["finished"]) for item in listed] == [("small", 3, 3)]
    assert ask("study", "status", "small")["steps"]["study_worker"]["state"] == "done"


def trials(ask, name: str) -> list[dict[str, Any]]:
    """What a trial is: its number, settings, state, value and steps."""
    kept = ("trial", "settings", "state", "values", "steps")
    return [{key: trial[key] for key in kept} for trial in ask("study", "show", name)["trials"]]


@pytest.mark.slow  # three minutes: four runs of a study
def test_a_study_interrupted_twice_ends_as_an_uninterrupted_one(state, ask):
    """By Ctrl-C, and by the death of all its processes."""

    def study(name: str) -> list[str]:
        return command("study", "run", name, "--trials", "12", "--workers", "2", **STUDY)

    def finished() -> int:
        listed = [item for item in ask("study", "list") if item["name"] == "interrupted"]
        return sum(bool(trial["steps"]) for trial in trials(ask, "interrupted")) if listed else 0

    def interrupt(after: int, end: Callable[[subprocess.Popen], None]) -> None:
        process = subprocess.Popen(
            study("interrupted"),
            cwd=ROOT,
            env=environment(state),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: finished() >= after)
        end(process)
        process.wait(120)
        assert not living(state)

    def kill(process: subprocess.Popen) -> None:
        process.kill()  # first, so that it starts nothing any more
        process.wait()
        for number in living(state):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        wait_until(lambda: not living(state))

    whole = subprocess.run(study("at-once"), capture_output=True, text=True, cwd=ROOT, env=environment(state))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    interrupt(2, lambda process: process.send_signal(signal.SIGINT))
    interrupt(6, kill)
    end = subprocess.run(study("interrupted"), capture_output=True, text=True, cwd=ROOT, env=environment(state))
    assert end.returncode == 0, end.stdout + end.stderr
    assert len(trials(ask, "interrupted")) == 12
    assert trials(ask, "interrupted") == trials(ask, "at-once")
    assert {trial["state"] for trial in trials(ask, "at-once")} == {"complete", "pruned"}
