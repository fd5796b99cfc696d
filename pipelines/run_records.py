"""Records of the pipeline runs of this machine: one `run.json` per run, updated while it runs."""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.state import State, read_json, set_aside
from model.errors import MyXTTSError
from model.files import read_record, write_json
from pipelines.profiles import STEPS, study_steps

RUN_ORDER = (*STEPS[:1], *study_steps(then_train=True))
"""All steps in the order in which they run."""
CLOCK_SLACK_SECONDS = 60.0
"""Tolerance for a change of the clock between the start of a process and the record of its run."""


class RunError(MyXTTSError):
    """A run does not exist or is not in the required state; the message says which runs there are."""


@dataclass(kw_only=True)
class StepRecord:
    """Status of one step of a run.

    Attributes:
        state: `waiting`, `running`, `cached`, `done`, `failed` or `interrupted`.
        started: Start, in seconds since the epoch; 0 before it.
        seconds: Time that the step has taken so far.
        done: Units of work done, such as training steps.
        total: Units of work in all; 0 if the step does not report its progress.
        message: Summary of a finished step, or the error of a failed one.
    """

    state: str = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    message: str = ""

    @property
    def progress(self) -> str:
        """Progress of a running step such as `120/500 (24 %)`; '' if it has reported none."""
        if self.state != "running" or not self.total:
            return ""
        return f"{self.done}/{self.total} ({100 * self.done // self.total} %)"


@dataclass(kw_only=True)
class RunRecord:
    """Status of one run, stored as `run.json` in its folder.

    Attributes:
        id: Name of the run, sortable by time; ends with the id of its process.
        folder: Folder of the run.
        arguments: Arguments of the pipeline.
        state: `running`, `done`, `failed` or `interrupted`.
        started: Start, in seconds since the epoch.
        seconds: Time that the run has taken so far.
        target: `local` or `docker`.
        steps: Step -> its status, in the order of the pipeline.
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
    def subject(self) -> str:
        """Name of the study or of the registered model that the run makes."""
        return self.arguments.get("study") or self.arguments["name"]

    @property
    def process(self) -> int:
        """Id of the process that runs the pipeline."""
        return int(self.id.rpartition("-")[2])

    @property
    def progress(self) -> str:
        """Summary of the steps: numbers of finished ones, and the step that runs or failed."""
        counts = Counter(step.state for step in self.steps.values())
        parts = [f"{counts[state]} {state}" for state in ("cached", "done") if counts[state]]
        parts += [
            f"{name} {step.state} {step.progress}".rstrip()
            for name, step in self.steps.items()
            if step.state in ("running", "failed", "interrupted")
        ]
        return ", ".join(parts) or "no step started"

    def is_alive(self) -> bool:
        """Returns whether the process of the run still exists; a later process with the same id does not count."""
        started = process_start(self.process)
        return started is not None and started <= self.started + CLOCK_SLACK_SECONDS

    def result(self) -> dict[str, Any]:
        """Returns the output of the last step, or the report of a failed gate; {} if there is neither."""
        for name in ("result.json", "failure.json"):
            if (self.folder / name).is_file():
                result: dict[str, Any] = read_json(self.folder / name)
                return result
        return {}

    def plain(self) -> dict[str, Any]:
        """Returns the record as JSON data."""
        values = {name: value for name, value in vars(self).items() if name not in ("folder", "steps")}
        return {**values, "steps": {name: dict(vars(step)) for name, step in self.steps.items()}}

    def save(self) -> None:
        """Writes `run.json`."""
        write_json(self.folder / "run.json", self.plain())

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """Reads the record of the run in `folder`.

        Raises:
            RunError: it is damaged.
        """
        saved = read_record(folder / "run.json", _Saved, RunError, "damaged; the run cannot be shown")
        steps = {name: saved.steps[name] for name in RUN_ORDER if name in saved.steps}
        if not saved.id.rpartition("-")[2].isdecimal():
            raise RunError(f"{folder / 'run.json'}: `id` is {saved.id!r}, without a process; the run cannot be shown")
        values = {name: value for name, value in vars(saved).items() if name != "steps"}
        return cls(folder=folder, steps=steps, **values)

    def update(self) -> None:
        """Sets the times of a running run to now, and its state to `interrupted` if its process is gone."""
        if self.state != "running":
            return
        now = time.time()
        if not self.is_alive():
            self.state = "interrupted"
            now = (self.folder / "run.json").stat().st_mtime  # its last update
        self.seconds = round(max(now - self.started, 0.0), 2)
        for step in self.steps.values():
            if step.state == "running":
                step.state, step.seconds = self.state, round(max(now - step.started, 0.0), 2)


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """Content of `run.json`; attributes as in `RunRecord`."""

    id: str
    arguments: dict[str, str]
    state: str
    started: float
    seconds: float
    target: str
    steps: dict[str, StepRecord]


def process_start(process: int) -> float | None:
    """Returns the start of a process of this machine in seconds since the epoch; `None` if it does not exist."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    booted = next(line for line in Path("/proc/stat").read_text("utf-8").splitlines() if line.startswith("btime"))
    return int(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), after the name


def all_runs(state: State) -> list[RunRecord]:
    """Returns all recorded runs with their current status, newest first; damaged records are set aside."""
    records = []
    for path in sorted(state.runs.glob("run-*/run.json"), reverse=True):
        try:
            record = RunRecord.load(path.parent)
        except RunError as error:
            set_aside(path, str(error))
            continue
        record.update()
        records.append(record)
    return records


def find_run(state: State, identifier: str | None, study: str = "") -> RunRecord:
    """Returns a run by its id, or the newest one.

    Args:
        state: State folder.
        identifier: Id of the run; `None` for the newest.
        study: Consider only the runs of this study.

    Raises:
        RunError: there is no such run.
    """
    records = [record for record in all_runs(state) if study in ("", record.arguments.get("study"))]
    for record in records:
        if identifier in (None, record.id):
            return record
    if study and not records:
        raise RunError(f"the study {study} has no run in {state.root}; `myxtts study run {study}` starts one")
    if not records:
        raise RunError(f"{state.root} has no runs yet; `myxtts run` makes the first")
    raise RunError(f"no run {identifier} in {state.root}; `myxtts pipeline list` lists all runs")
