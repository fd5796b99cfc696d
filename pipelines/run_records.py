"""What is known of the pipeline runs of this machine: one `run.json` a run, written as it goes."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.state import State, read_json, write_json
from model.errors import MyXTTSError
from pipelines.profiles import STEPS

CLOCK_SLACK_SECONDS = 60.0
"""A clock that was set right meanwhile must not make a living run a dead one."""


class RunError(MyXTTSError):
    """There is no such run, or it is not in a state for what was asked; the message says what there is."""


@dataclass
class StepRecord:
    """How one step of a run went: `waiting`, `running`, `cached`, `done`, `failed` or `interrupted`."""

    state: str = "waiting"
    seconds: float = 0.0
    message: str = ""


@dataclass
class RunRecord:
    """One run, as `run.json` in its folder keeps it.

    Attributes:
        id: Name of the run, sortable by time.
        state: `running`, `done`, `failed` or `interrupted`.
        arguments: What the pipeline was given.
        target: `local` or `docker`.
        steps: Step -> how it went.
    """

    id: str
    folder: Path
    arguments: dict[str, str]
    state: str = "running"
    started: float = 0.0
    seconds: float = 0.0
    target: str = "local"
    steps: dict[str, StepRecord] = field(default_factory=lambda: {step: StepRecord() for step in STEPS})

    @property
    def process(self) -> int:
        """The process that runs it."""
        return int(self.id.rpartition("-")[2])

    @property
    def progress(self) -> str:
        """The steps in a few words: how many are done, and those that are not."""
        counts = Counter(step.state for step in self.steps.values())
        told = [f"{counts[state]} {state}" for state in ("cached", "done") if counts[state]]
        told += [
            f"{name} {step.state}"
            for name, step in self.steps.items()
            if step.state in ("running", "failed", "interrupted")
        ]
        return ", ".join(told) or "nothing done yet"

    def is_alive(self) -> bool:
        """Whether its process still runs: this very one, not another that was given its number later."""
        started = process_start(self.process)
        return started is not None and started <= self.started + CLOCK_SLACK_SECONDS

    def result(self) -> dict[str, Any]:
        """Where everything of a finished run is: the last step's pointer; of a failed gate, its report; else {}."""
        for name in ("result.json", "failure.json"):
            if (self.folder / name).is_file():
                return read_json(self.folder / name)
        return {}

    def plain(self) -> dict[str, Any]:
        """The record as JSON data."""
        values = {name: value for name, value in vars(self).items() if name not in ("folder", "steps")}
        return {**values, "steps": {name: dict(vars(step)) for name, step in self.steps.items()}}

    def save(self) -> None:
        """Write `run.json`."""
        write_json(self.folder / "run.json", self.plain())

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """The record that a run left in its folder."""
        plain = read_json(folder / "run.json")
        saved = plain.pop("steps")
        steps = {name: StepRecord(**saved.get(name, {})) for name in STEPS}
        return cls(folder=folder, steps=steps, **plain)


def process_start(process: int) -> float | None:
    """When a process of this machine was started (seconds since the epoch); `None` when there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    booted = next(line for line in Path("/proc/stat").read_text("utf-8").splitlines() if line.startswith("btime"))
    return int(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), after the name


def all_runs(state: State) -> list[RunRecord]:
    """Every recorded run, newest first; one whose process is gone without a word counts as interrupted."""
    records = [RunRecord.load(path.parent) for path in sorted(state.runs.glob("run-*/run.json"), reverse=True)]
    for record in records:
        if record.state == "running" and not record.is_alive():
            record.state = "interrupted"
    return records


def find_run(state: State, identifier: str | None) -> RunRecord:
    """A run by its id, or the newest.

    Raises:
        RunError: there is none.
    """
    records = all_runs(state)
    for record in records:
        if identifier in (None, record.id):
            return record
    if not records:
        raise RunError(f"{state.root} has no runs yet; `myxtts run` makes the first")
    raise RunError(f"no run {identifier} in {state.root}; `myxtts pipeline list` shows those that there are")
