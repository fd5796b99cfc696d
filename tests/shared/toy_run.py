"""The smallest whole run: settings of a pipeline that makes its corpus, trains a few steps and registers a voice."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from components.gate.comparison import COMPARED
from components.state import State
from pipelines.run_records import RunRecord

ROOT = Path(__file__).parents[2]
NAME = "myxtts-toy-xtiny"
"""Name under which the voice is registered."""

SETTINGS = {
    "model_size": "xtiny",
    "launch.launcher": "inline",  # processes of torchrun would import everything again
    "corpus.name": "toy",
    "corpus.engine": "espeak",
    "corpus.generated_voices": {"en": 1, "fa": 1},
    "corpus.sentences_per_voice": 5,
    "split.min_held_out": 1,
    "training.max_steps": 8,
    "training.evaluation_interval": 8,
    "evaluation.max_clips": 2,
    "evaluation.max_training_clips": 2,
    "evaluation.texts": 2,
    "evaluation.recognizer": "none",
    "vocoder.griffin_lim_iterations": 2,
    "registry.max_mel_cepstral_distortion": 99,
    "registry.min_alignment_monotonicity": 0,
    "registry.min_sentences": 2,
    **{f"registry.{metric}_margin": 9999 for metric in COMPARED},
}


def environment(state: State) -> dict[str, str]:
    """Returns the variables of a command that works on this state."""
    dropped = ("MLFLOW_", "KUBERNETES_", "MYXTTS_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return {**kept, "MYXTTS_STATE": str(state.root)}


def command(*arguments: str, **changes: object) -> list[str]:
    """Returns the command `myxtts <arguments>` with the settings of the small run and `changes` (`__` for the dot)."""
    chosen = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    options = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "pipelines.cli.main", *arguments, *options]


def newest(state: State) -> RunRecord:
    """Returns the record of the newest run."""
    return RunRecord.load(max(state.runs.glob("run-*"), key=lambda path: path.stat().st_mtime))


def wait_until(condition: Callable[[], object], seconds: float = 200.0) -> None:
    """Waits until a condition holds; the test fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def living(state: State) -> list[int]:
    """Returns the processes that work on this state."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(state.root).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # ended meanwhile
    return found
