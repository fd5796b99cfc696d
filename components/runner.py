"""What every pipeline step shares: how it reports itself, how it fails, and the pointers that it hands on.

Steps pass small JSON pointers to folders in the state, never the audio or weights themselves.
"""

import atexit
import contextlib
import importlib
import json
import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.failures import explained
from components.state import read_json, write_json
from components.termination import on_termination
from model.errors import MyXTTSError

EVENT = "::step::"


EXECUTOR = "kfp.dsl.executor_main"
"""The program that a step's process runs."""


logger = logging.getLogger(__name__)


class StepError(MyXTTSError):
    """A step cannot go on; the message says what is wrong, where, and what to do."""


def emit(step: str, state: str, **details: Any) -> None:
    """Tell whoever reads this process's output what the step is doing: one line that a program can parse."""
    # Nobody listening any more must not keep an interrupted training from saving itself.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{EVENT} {json.dumps({'step': step, 'state': state, **details})}\n")
        sys.stdout.flush()


def log_to_output() -> None:
    """Send the log of this process to its standard output, where a step's lines are read."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    logging.captureWarnings(True)
    for noisy in ("alembic", "mlflow", "matplotlib", "numba", "py.warnings"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


@dataclass
class Ending:
    """The last thing that a step's process does: it ends, without taking apart what torch and MLflow have imported.

    Python would need up to seconds for that, and free nothing that the end of the process does not free.

    Attributes:
        status: Exit status; None while the step runs.
    """

    status: int | None = None

    def __call__(self) -> None:
        if self.status is None or hasattr(sys, "last_value"):  # the executor failed after the step: its error counts
            return
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self.status)


def run_step(step: str, artifact: Any, **inputs: Any) -> None:
    """Run `components.<step>.run.run(**inputs)` and write the pointer that it returns to the output artifact.

    The body of every component: an error that a user can mend becomes one line and exit status 1, as a pod must end. A
    step that is terminated records it at once, whatever it is doing.

    Args:
        step: Name of the component's folder.
        artifact: The component's output artifact; the pointer becomes its file and its metadata.
        **inputs: Strings, and paths of input artifacts.
    """
    log_to_output()
    ending = Ending()
    if getattr(sys.modules["__main__"].__spec__, "name", "") == EXECUTOR:
        atexit.register(ending)  # before anything that the step registers, so that it comes after all of that
    emit(step, "started")
    started = time.monotonic()
    terminated: list[str] = []

    def record() -> None:
        terminated.append(step)
        emit(step, "interrupted", seconds=round(time.monotonic() - started, 2))

    try:
        with on_termination(record):
            pointer = importlib.import_module(f"components.{step}.run").run(**inputs)
    except Exception as error:  # noqa: BLE001 - the outermost frame of a process: reported in full, then exit
        told = explained(error)
        if not told:
            traceback.print_exc(file=sys.stdout)
            told = f"{error}" or type(error).__name__
        seconds = round(time.monotonic() - started, 2)
        report = {"report": str(error.report)} if getattr(error, "report", None) else {}
        emit(step, "failed", seconds=seconds, error=told, **report)
        ending.status = 1
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        if not terminated:
            record()
        ending.status = 130
        raise SystemExit(130) from None
    write_json(Path(artifact.path), pointer)
    artifact.metadata.update({key: value for key, value in pointer.items() if isinstance(value, str)})
    emit(step, "finished", seconds=round(time.monotonic() - started, 2), message=pointer.get("summary", ""))
    ending.status = 0


def read_pointer(path: str) -> dict[str, Any]:
    """The pointer of an input artifact, checked to lead to a folder that is still there.

    Raises:
        StepError: the folder that it points to is gone.
    """
    pointer = read_json(Path(path))
    if not Path(pointer["folder"]).is_dir():
        raise StepError(
            f"{pointer['folder']} is gone, but the pipeline's cache still points there; "
            "run the pipeline again (stale cache entries are dropped at its start)"
        )
    return pointer
