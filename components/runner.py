"""Runs one pipeline step in its process: reports its progress, its errors and its end, and writes its record."""

import atexit
import contextlib
import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from components.contracts import StepError, StepOutput
from components.failures import explain
from components.process_chain import end_with_parent
from components.results import OutputArtifact, Results
from components.termination import on_termination
from model.addresses import hide_credentials
from model.config import StepSettings
from model.files import write_text

EVENT = "::step::"
"""Prefix of the lines of a step's output that programs read."""
EXECUTOR = "kfp.dsl.executor_main"
"""Module that KFP runs in a step's process."""

Settings = TypeVar("Settings", bound=StepSettings)


def emit(step: str, state: str, **details: Any) -> None:
    """Writes an event of a step to standard output, as one line of JSON after `EVENT`."""
    # A closed pipe must not keep an interrupted training from saving its checkpoint.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{EVENT} {json.dumps({'step': step, 'state': state, **details})}\n")
        sys.stdout.flush()


def log_to_output() -> None:
    """Sends the log of this process to standard output, where a step's lines are read."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    logging.captureWarnings(True)
    for noisy in ("alembic", "mlflow", "matplotlib", "numba", "py.warnings"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


@dataclass
class QuickExit:
    """Exit handler that ends the process at once, without tearing down torch and MLflow.

    The teardown takes up to seconds and frees nothing that the end of the process does not free.

    Attributes:
        status: Exit status; None while the step runs, which leaves the exit to Python.
    """

    status: int | None = None

    def __call__(self) -> None:
        if self.status is None or hasattr(sys, "last_value"):  # the executor failed after the step: its error counts
            return
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self.status)


def run_step(
    step: str,
    artifact: OutputArtifact,
    shown: Mapping[str, OutputArtifact] | None = None,
    parameters: Mapping[str, str] | None = None,
    /,
    **inputs: Any,
) -> None:
    """Runs `components.<step>.run.run(**inputs)` and writes the record that it returns to the output artifact.

    `components.<step>.run.results(record)` returns its human-readable results; those of a failed gate are shown too.

    Every component consists of this call. An error that a user can fix becomes one line and exit status 1. A step that
    is terminated reports it at once, whatever it is doing.

    Args:
        step: Name of the component's folder.
        artifact: The component's output artifact; the record becomes its file and its metadata.
        shown: Output artifacts for the page of KFP, by the attributes of `Results`.
        parameters: Output parameters: field of the record -> file that gets its text.
        **inputs: Text parameters, and paths of input artifacts.
    """
    log_to_output()
    end_with_parent("the shell or launcher of the step")
    quick_exit = QuickExit()
    if getattr(sys.modules["__main__"].__spec__, "name", "") == EXECUTOR:
        atexit.register(quick_exit)  # before the handlers that the step registers, since it must run after them
    emit(step, "started")
    started = time.monotonic()
    interrupted: list[str] = []

    def seconds() -> float:
        return round(time.monotonic() - started, 2)

    def report_interrupt() -> None:
        interrupted.append(step)
        emit(step, "interrupted", seconds=seconds())

    try:
        with on_termination(report_interrupt):
            output = importlib.import_module(f"components.{step}.run").run(**inputs)
    except Exception as error:  # noqa: BLE001 - the outermost frame of a process: reported in full, then exit
        message = explain(error)
        if not message:
            sys.stdout.write(hide_credentials(traceback.format_exc()))
            message = hide_credentials(f"{error}") or type(error).__name__
        failed = getattr(error, "output", None)  # of a failed gate
        report = {"report": str(failed.report)} if failed else {}
        if failed and shown:
            _write_results(step, failed, shown)
        emit(step, "failed", seconds=seconds(), error=message, **report)
        quick_exit.status = 1
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        if not interrupted:
            report_interrupt()
        quick_exit.status = 130
        raise SystemExit(130) from None
    output.write(artifact.path)
    artifact.metadata.update(output.metadata())
    for field, path in (parameters or {}).items():
        write_text(Path(path), getattr(output, field))
    if shown:
        _write_results(step, output, shown)
    emit(step, "finished", seconds=seconds(), message=output.summary)
    quick_exit.status = 0


def _write_results(step: str, output: StepOutput, shown: Mapping[str, OutputArtifact]) -> None:
    results: Results = importlib.import_module(f"components.{step}.run").results(output)
    results.write(shown)


def parse_settings(kind: type[Settings], text: str) -> Settings:
    """Reads the settings that a step was given.

    Raises:
        StepError: a setting is missing, unknown or out of range.
    """
    try:
        return kind.from_json(text)
    except ValueError as error:
        raise StepError(
            f"the step cannot use its settings: {error}; compile the pipeline with the same version of this program"
        ) from error
