"""Runs the training pipeline on this machine, with steps in subprocesses (`--target local`) or containers (`docker`).

KFP's local runner runs in a process group of its own (`pipelines.local_worker`); this module starts it, follows its
output and ends it.
"""

import calendar
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from components.contracts import PATH_FIELDS
from components.launch import VARIABLE as LAUNCH
from components.results import keep_results
from components.runner import EVENT
from components.state import State, StateError, read_json, write_json
from model.config.resolution import ConfigError
from model.config.schema import Config
from model.config.vocoder import VocoderConfig
from model.errors import MyXTTSError
from model.files import read_record
from pipelines.profiles import STEPS, Profile, local_profile, study_steps
from pipelines.run_records import RunRecord, StepRecord

MAX_WORKERS = 2
"""Number of tasks of a loop that KFP's local runner runs in parallel."""
GRACE_SECONDS = 20.0
"""Time between the interrupt of a run's processes and their kill, in which training saves a checkpoint."""
STAMP = "%Y%m%d-%H%M%S"
SAVE_SECONDS = 1.0
"""Shortest time between two writes of the progress within a step."""
STEP_LINE = re.compile(rf"{EVENT} (\{{.*\}})\s*$")
KFP_LINE = re.compile(r"\s*Wrote executor output file to ")
"""Beginning of the line that KFP's executor logs when a task ends. Other tasks of the same loop may still run."""

logger = logging.getLogger(__name__)


class PipelineError(MyXTTSError):
    """A pipeline run failed; the message names the step, its reason and the log."""

    exit_code = 1

    def __init__(self, message: str, record: RunRecord) -> None:
        super().__init__(message)
        self.record = record


@dataclass(frozen=True)
class Target:
    """Environment of the steps on this machine.

    Attributes:
        profile: Profile for the compilation.
        config: Settings of the containers; `None` for subprocesses.
    """

    profile: Profile
    config: Config | None = None

    def environment(self, state: State, lineage: Mapping[str, str]) -> dict[str, str]:
        """Returns the environment variables of all steps."""
        tags = dict(lineage)
        if self.config is not None:
            tags["image"] = self.profile.images["train"]
        values = {"MYXTTS_STATE": str(state.root), "MYXTTS_LINEAGE": json.dumps(tags)}
        if self.profile.launch.launcher != "inline":
            values[LAUNCH] = json.dumps({"launch": self.profile.launch.model_dump()})
        return values

    def containers(self, state: State, run_id: str, variables: Mapping[str, str]) -> dict[str, Any]:
        """Returns the arguments of KFP's Docker runner; {} for subprocesses."""
        if self.config is None:
            return {}
        from pipelines.containers import runner_arguments

        return runner_arguments(self.config.docker, state, run_id, variables)

    def begin(self, state: State) -> None:
        """Prepares the state before the first step."""
        if self.config is not None:
            from pipelines.containers import container_user, hand_over

            hand_over(state, container_user(self.config.docker))

    def end(self, state: State, run_id: str, started: float) -> None:
        """Stops the containers of a run that has ended in any way, and records the engine's list of them."""
        if self.config is not None:
            from pipelines.containers import record_containers, stop

            stop(run_id)
            record_containers(state, run_id, started)


def make_target(name: str, config: Config, cached: bool = True, steps: Sequence[str] = STEPS) -> Target:
    """Returns the target `local` or `docker` for these settings.

    Args:
        name: `local` or `docker`.
        config: Settings.
        cached: Whether results of earlier runs are used.
        steps: Steps of the pipeline.

    Raises:
        ContainerError: the engine or an image is missing.
        ConfigError: the launcher needs a cluster, or the vocoder checkpoint does not exist.
    """
    if name == "docker":
        from pipelines.containers import docker_profile

        return Target(replace(docker_profile(config), cached=cached), config)
    _require_checkpoint(config.vocoder)
    return Target(replace(local_profile(config.launch, steps), cached=cached))


def _require_checkpoint(vocoder: VocoderConfig) -> None:
    """Refuses a mistyped path of the vocoder checkpoint before training rather than after it."""
    path = Path(vocoder.checkpoint).expanduser()
    if vocoder.checkpoint and "://" not in vocoder.checkpoint and not path.exists():
        raise ConfigError(
            f"vocoder.checkpoint: {path} does not exist; give a folder of `myxtts vocoder` or an official file, or "
            "leave it empty to train from scratch"
        )


Reporter = Callable[[str, StepRecord, Mapping[str, Any]], None]
"""Called with (step, its record, details) whenever a step changes state or makes progress."""


def run_training(
    state: State,
    arguments: Mapping[str, str],
    lineage: Callable[[str], Mapping[str, str]],
    report: Reporter = lambda *_: None,
    output: Callable[[str], None] = lambda _: None,
    target: Target | None = None,
) -> RunRecord:
    """Runs the pipeline; steps with unchanged inputs and code are taken from the cache, except those of `NOT_CACHED`.

    `results` in the run's folder holds the results that KFP's page would show: metrics, listening report, decision.

    Args:
        state: State folder.
        arguments: See `pipelines.training_pipeline.arguments`.
        lineage: Function from the run id to the tags of MLflow runs and model versions.
        report: Called with every change of a step.
        output: Called with every other line that a step writes.
        target: Environment of the steps [default: subprocesses].

    Raises:
        PipelineError: a step failed; `run.json` of the run names it.
        KeyboardInterrupt: raised after all processes of the run have ended.
    """
    from pipelines.compiling import compile_training

    target = target or Target(local_profile())
    return _run(state, compile_training(target.profile), STEPS, arguments, lineage, report, output, target)


def run_study(
    state: State,
    arguments: Mapping[str, str],
    workers: int,
    lineage: Callable[[str], Mapping[str, str]],
    report: Reporter = lambda *_: None,
    output: Callable[[str], None] = lambda _: None,
    target: Target | None = None,
    then_train: bool = False,
) -> RunRecord:
    """Runs the study pipeline and, if `then_train`, a training with the best settings.

    Args:
        state: State folder.
        arguments: See `pipelines.study_pipeline.study_arguments`.
        workers: Number of workers.
        lineage: Function from the run id to the tags of MLflow runs and model versions.
        report: Called with every change of a step.
        output: Called with every other line that a step writes.
        target: Environment of the steps [default: subprocesses].
        then_train: Whether a training follows.

    Raises:
        ConfigError: there are more workers than KFP's local runner runs in parallel.
        PipelineError: a step failed; `run.json` of the run names it.
        KeyboardInterrupt: raised after all processes of the run have ended.
    """
    from pipelines.compiling import compile_study

    if workers > MAX_WORKERS:
        raise ConfigError(
            f"study.workers = {workers}, but on this machine a pipeline runs {MAX_WORKERS} tasks in parallel; use "
            f"{MAX_WORKERS}, and start `myxtts study worker {arguments['study']}` for each further one"
        )
    steps = study_steps(then_train)
    target = target or Target(local_profile(steps=steps))
    text = compile_study(target.profile, workers, then_train)
    return _run(state, text, steps, arguments, lineage, report, output, target)


def _run(
    state: State,
    text: str,
    steps: Sequence[str],
    arguments: Mapping[str, str],
    lineage: Callable[[str], Mapping[str, str]],
    report: Reporter,
    output: Callable[[str], None],
    target: Target,
) -> RunRecord:
    """Runs a compiled pipeline with these steps."""
    state.prepare()
    drop_stale_cache(state)
    identifier, folder = _new_run(state)
    record = RunRecord(
        id=identifier,
        folder=folder,
        arguments=dict(arguments),
        started=time.time(),
        target=target.profile.name,
        steps={step: StepRecord() for step in steps},
    )
    record.save()
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(text, "utf-8")
    variables = target.environment(state, lineage(identifier))
    request = {
        "pipeline": str(pipeline),
        "arguments": dict(arguments),
        "run": identifier,
        "containers": target.containers(state, identifier, variables),
        "pipeline_root": str(state.folder("runs", identifier, "outputs")),
        "workspace": str(state.folder("runs", identifier, "workspace")),
        "result": str(folder / "result.json"),
        "cache_root": str(state.folder("kfp-cache")),
    }
    environment = {
        **os.environ,
        **variables,
        "TMPDIR": str(state.folder("runs", identifier, "tmp")),  # the local runner leaves a folder there per task
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "pipelines.local_worker", str(write_json(folder / "request.json", request))]
    target.begin(state)
    watcher = _Watcher(record, report, output)
    try:
        with (
            (folder / "log.txt").open("w", encoding="utf-8") as log,
            _process_group(command, environment, folder) as run,
        ):
            for line in run.output:
                log.write(line)
                log.flush()
                watcher.read(line)
            status = run.process.wait()
    except KeyboardInterrupt:
        watcher.end("interrupted")
        raise
    finally:
        target.end(state, record.id, record.started)
        keep_results(folder / "outputs", folder / "results")
    watcher.end("done" if status == 0 else "failed")
    if status:
        raise PipelineError(watcher.explain(folder / "log.txt"), record)
    return record


def _new_run(state: State) -> tuple[str, Path]:
    """Returns the id of a new run and its new folder.

    Ids begin with the time in UTC, by which they are sorted. If the clock was set back, the time of the newest run
    counts on instead.
    """
    with state.lock("runs"):
        stamps = [_seconds(path.name) for path in state.folder("runs").glob("run-*")]
        moment = max([int(time.time()), *(stamp + 1 for stamp in stamps)])
        identifier = f"run-{time.strftime(STAMP, time.gmtime(moment))}-{os.getpid()}"
        return identifier, state.folder("runs", identifier)


def _seconds(identifier: str) -> int:
    """Returns the time in the id of a run, in seconds since the epoch; 0 for another name."""
    try:
        return calendar.timegm(time.strptime(identifier.removeprefix("run-").rpartition("-")[0], STAMP))
    except ValueError:
        return 0


def drop_stale_cache(state: State) -> None:
    """Removes cache entries whose results no longer exist, so that their steps run again.

    An entry is valid while the folders in it exist.
    """
    for entry in state.kfp_cache.glob("*.json"):
        try:
            outputs = read_record(entry, dict[str, Any], StateError, "a step runs again")
        except StateError as error:
            logger.warning("removing a damaged entry of the cache: %s", error)
            entry.unlink(missing_ok=True)
            continue
        found = [value.get("metadata") or {} for value in outputs.values() if isinstance(value, dict)]
        if not all(map(_holds, found)):
            entry.unlink(missing_ok=True)


def _holds(metadata: Any) -> bool:
    paths = [metadata[key] for key in PATH_FIELDS if key in metadata] if isinstance(metadata, dict) else [""]
    return all(isinstance(path, str) and path and "\0" not in path and Path(path).exists() for path in paths)


def reported_lines(log: str) -> list[str]:
    """Returns the reports of the steps in the log of a run: starts, ends with time and summary, and errors."""
    lines = []
    for found in map(STEP_LINE.search, log.splitlines()):
        event = json.loads(found[1]) if found else {"state": "progress"}
        if event["state"] == "progress":
            continue
        seconds = f"{event['seconds']:.1f} s" if "seconds" in event else ""
        message = event.get("error") or event.get("message", "")
        lines.append(f"{event['step']:<16} {event['state']:<11} {seconds:>10}  {message}".rstrip())
    return lines


class _Watcher:
    """Follows the output of a run: event lines update the record, other lines are passed on."""

    def __init__(self, record: RunRecord, report: Reporter, output: Callable[[str], None]) -> None:
        self._record = record
        self._report = report
        self._output = output
        self._current = ""
        self._active: Counter[str] = Counter()
        self._error = ""
        self._saved = 0.0
        self._tail: deque[str] = deque(maxlen=15)

    def read(self, line: str) -> None:
        """Processes one line of output."""
        if not (found := STEP_LINE.search(line)):
            self._tail.append(line.rstrip())
            if self._active and line.strip() and not KFP_LINE.match(line):  # between steps only KFP itself writes
                self._output(line.strip())
            return
        details = json.loads(found.group(1))
        name, happened = details.pop("step"), details.pop("state")
        step = self._record.steps[name]
        if happened == "started":
            self._mark_cached(before=name)
            if not self._active[name]:
                step.started, self._error = time.time(), ""
            step.state = "running"
            self._active[name] += 1
            self._current = name
        elif happened == "progress":
            step.done, step.total = details.get("done", 0), details.get("total", 0)
        elif happened in ("finished", "failed", "interrupted"):
            self._end(name, step, happened, details)
            if step.state == "running":
                return  # another worker of the step still works
        self._report(name, step, details)
        if happened != "progress" or time.monotonic() - self._saved > SAVE_SECONDS:
            self._saved = time.monotonic()
            self._record.save()

    def _end(self, name: str, step: StepRecord, happened: str, details: Mapping[str, Any]) -> None:
        """Records the end of a step, or of one of its parallel workers."""
        self._active[name] -= 1
        self._active += Counter()  # keeps what is above zero
        step.seconds = max(step.seconds, details.get("seconds", 0.0))
        if happened != "finished":
            step.state, self._current = happened, name
        elif not self._active[name] and step.state == "running":
            step.state = "done"
        self._error = details.get("error", "") or self._error
        step.message = details.get("message", "") or details.get("error", "") or step.message
        if happened == "failed" and "report" in details:
            write_json(self._record.folder / "failure.json", read_json(Path(details["report"])))

    def end(self, state: str) -> None:
        """Closes the record of a run; steps of a successful run that wrote nothing were taken from the cache."""
        if state == "done":
            self._mark_cached(before="")
        for step in self._record.steps.values():
            if step.state == "running":
                step.state = state
        self._record.state = state
        self._record.seconds = round(time.time() - self._record.started, 2)
        self._record.save()

    def explain(self, log: Path) -> str:
        """Returns the error message of a failed run."""
        where = f"step {self._current}" if self._current else "the run"
        error = self._error or "\n".join(self._tail)
        return f"{where} failed: {error}\nlog: {log}"

    def _mark_cached(self, before: str) -> None:
        for name, step in self._record.steps.items():
            if name == before:
                return
            if step.state == "waiting":
                step.state = "cached"
                self._report(name, step, {})


@dataclass(frozen=True)
class _RunningProcess:
    """Leader of a process group, and its output as text lines."""

    process: subprocess.Popen[str]
    output: IO[str]


@contextmanager
def _process_group(command: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[_RunningProcess]:
    """Starts a process group and ends it with the block: first an interrupt, on which training saves, then a kill."""
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        bufsize=1,
        start_new_session=True,
    )
    assert process.stdout is not None  # a pipe
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield _RunningProcess(process, process.stdout)
    finally:
        _end_group(process)
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _end_group(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        if _signal(process.pid, signal.SIGINT):
            while time.monotonic() < deadline and _alive(process):
                time.sleep(0.05)
    finally:  # also after a second interrupt, which skips the rest of the grace time
        _signal(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _alive(process: subprocess.Popen[str]) -> bool:
    """Returns whether a process of the group still runs."""
    process.poll()  # reaps the leader: as a zombie it would keep the group alive
    return _signal(process.pid, 0)


def _signal(group: int, number: int) -> bool:
    """Sends a signal to a process group; returns whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
