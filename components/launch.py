"""How training starts: in the step's own process, in several beside it, or on several nodes by Kubeflow Trainer.

Whatever the launcher, a worker is `python -m <module> <request>`, and several of them are started by the same command,
`python -m torch.distributed.run -m <module> <request>`: how many, and where the others are, stands in the environment
(`PET_NNODES`, `PET_NPROC_PER_NODE`, ...), which Kubeflow Trainer sets on its nodes and this module on one machine.
"""

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.failures import explained
from components.heartbeat import beating, stop_without
from components.runner import StepError, log_to_output
from components.state import read_json, write_json

log = logging.getLogger(__name__)

VARIABLE = "MYXTTS_LAUNCH"
"""Set by the target: JSON of the settings `launch`, and on a cluster of what the workers' pods get."""

GRACE_SECONDS = 60.0


def launch(module: str, request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run `module.work(request)` as the target says, and return what the first process answers.

    Args:
        module: Module with a function `work(request) -> dict`; run as a program it calls `worker_main`.
        request: JSON data.
        folder: Where request and answer lie, on a volume that every worker sees.

    Raises:
        StepError: workers ended without an answer, or with an error (its text).
    """
    told = json.loads(os.environ.get(VARIABLE, "{}"))
    launcher = told.get("launch", {}).get("launcher", "inline")
    if launcher == "inline":
        return importlib.import_module(module).work(request)
    answer, heartbeat = folder / "answer.json", folder / "heartbeat"
    path = write_json(folder / "request.json", {**request, "answer": str(answer), "heartbeat": str(heartbeat)})
    command = worker_command(module, path)
    with beating(heartbeat):
        if launcher == "torchrun":
            answer.unlink(missing_ok=True)
            status = _on_this_machine(command, told["launch"]["processes"], answer)
        else:
            from components.trainjob import run_trainjob

            status = run_trainjob(command, folder.name, told, answer)
    outcome = read_json(answer) if answer.is_file() else {"error": f"no worker of {' '.join(command)} answered"}
    if status or "error" in outcome:
        raise StepError(outcome.get("error") or f"the workers ended with {status}; their output above says why")
    return outcome


def worker_command(module: str, request: Path) -> list[str]:
    """The command of every node, on one machine and in a TrainJob."""
    return ["python", "-m", "torch.distributed.run", "-m", module, str(request)]


def worker_main(work: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    """What a worker does as a program: work, and leave the first process's answer or error where the step looks.

    It stops when the heartbeat of the step that started it does.
    """
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    stop_without(Path(request["heartbeat"]))
    if is_first():
        log_to_output()
    try:
        outcome = work(request)
    except Exception as error:
        if is_first() and (told := explained(error)):
            write_json(Path(request["answer"]), {"error": told})
        raise
    if is_first():
        write_json(Path(request["answer"]), outcome)


def is_first() -> bool:
    """Whether this process speaks and records: the only one, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def default_processes() -> int:
    """One training process per GPU; without a GPU two, if there are two cores."""
    import torch

    return torch.cuda.device_count() or min(2, torch.cpu.get_capabilities().get("num_physical_cores", 1))


def _on_this_machine(command: list[str], processes: int, answer: Path) -> int:
    """Exit status of the workers. They talk over the loopback, whatever the machine's name resolves to."""
    processes = processes or default_processes()
    told = {"PET_STANDALONE": "1", "PET_NNODES": "1", "PET_NPROC_PER_NODE": str(processes)}
    told["PET_LOCAL_ADDR"] = "127.0.0.1"  # in a container without a network its name leads nowhere
    usual = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *command[1:]], env={**usual, **os.environ, **told})
    try:
        return _wait(process, answer)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # workers save themselves before they end
        try:
            process.wait(GRACE_SECONDS)
        finally:
            process.kill()
        raise


def _wait(process: subprocess.Popen, answer: Path) -> int:
    """Wait for the workers to end; once they have answered, not longer than a while."""
    while True:
        try:
            return process.wait(1.0)
        except subprocess.TimeoutExpired:
            if answer.is_file() and time.time() - answer.stat().st_mtime > GRACE_SECONDS:
                log.warning("the workers answered %.0f s ago and have not ended; ending them", GRACE_SECONDS)
                process.terminate()
                process.wait(GRACE_SECONDS)
                return 0
