"""A whole run without doubles: generated speech, DVC, every step of the pipeline, MLflow, and synthesis."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from toy_run import NAME, ROOT, command, environment, newest

from components.artifacts import META
from components.state import State
from pipelines.profiles import NOT_CACHED

pytestmark = pytest.mark.slow  # and yet run for every commit (slow_part.EVERY_COMMIT)


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> State:
    return State(tmp_path_factory.mktemp("whole") / "state")


def run(state: State, **changes) -> subprocess.CompletedProcess:
    return subprocess.run(
        command("run", **changes), capture_output=True, text=True, cwd=ROOT, env=environment(state), timeout=300
    )


def steps(state: State) -> dict[str, str]:
    return {name: step.state for name, step in newest(state).steps.items()}


@pytest.fixture
def ask(state, ask_about) -> Callable[..., Any]:
    """Returns a function from arguments of `myxtts`, run in this process on the state of the runs, to its JSON."""
    return ask_about(state)


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
    # the threshold in params.yaml, and the decision of the gate, which is appended to what MLflow receives.
    notes = {".dvc", "dvc.lock", "code", "params.yaml", "myxtts", "records.jsonl", "delivered.json", META}
    assert rewritten  # the record of MLflow at least
    assert not [path for path in rewritten if path.parts[0] in kept and not notes & set(path.parts)]
