"""Launchers of a training: in the step's own process, in several local processes, or on several nodes.

With every launcher a worker is `python -m <module> <request>`, and several workers are started by
`python -m torch.distributed.run -m <module> <request>`. Their number and addresses are given by the environment
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

from components.contracts import StepError
from components.failures import explain
from components.heartbeat import beating, stop_without
from components.process_chain import end_with_parent, end_with_process
from components.process_identity import this_process
from components.runner import log_to_output
from components.state import read_json
from model.files import write_json

log = logging.getLogger(__name__)

VARIABLE = "MYXTTS_LAUNCH"
"""Environment variable that the target sets: JSON of the section `launch` and, on a cluster, of the pods' settings."""

GRACE_SECONDS = 60.0
"""Time that workers have to end by themselves."""


def launch(module: str, request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Runs `module.work(request)` with the launcher that the target set, and returns the result of the first process.

    Args:
        module: Module with a function `work(request) -> dict`; run as a program it calls `worker_main`.
        request: JSON data.
        folder: Folder of the request and the answer, on a volume that every worker can read.

    Raises:
        StepError: the workers failed (the message is the error of the first), or ended without an answer.
    """
    settings = json.loads(os.environ.get(VARIABLE, "{}"))
    launcher = settings.get("launch", {}).get("launcher", "inline")
    if launcher == "inline":
        return importlib.import_module(module).work(request)
    answer, heartbeat = folder / "answer.json", folder / "heartbeat"
    links = {"answer": str(answer), "heartbeat": str(heartbeat), "step": this_process()}
    path = write_json(folder / "request.json", {**request, **links})
    command = worker_command(module, path)
    with beating(heartbeat):
        if launcher == "torchrun":
            answer.unlink(missing_ok=True)
            status = _run_torchrun(command, settings["launch"]["processes"], answer)
        else:
            from components.trainjob import run_trainjob

            status = run_trainjob(command, folder.name, settings, answer)
    outcome = read_json(answer) if answer.is_file() else {"error": f"no worker of {' '.join(command)} answered"}
    if status or "error" in outcome:
        raise StepError(outcome.get("error") or f"the workers ended with {status}; their output above says why")
    return outcome


def worker_command(module: str, request: Path) -> list[str]:
    """Returns the command of every node, on one machine and in a TrainJob."""
    return ["python", "-m", "torch.distributed.run", "-m", module, str(request)]


def worker_main(work: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    """Runs `work` as the main function of a worker; the first process writes its result or error to the answer file.

    The worker stops when torchrun dies, when the step's process does on this machine, or when its heartbeat stops.
    """
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    if is_first():
        log_to_output()
    stop_without(Path(request["heartbeat"]))
    end_with_parent("torchrun")
    end_with_process(request["step"], "the step of this training")
    try:
        outcome = work(request)
    except Exception as error:
        if is_first() and (message := explain(error)):
            write_json(Path(request["answer"]), {"error": message})
        raise
    if is_first():
        write_json(Path(request["answer"]), outcome)


def is_first() -> bool:
    """Returns whether this process logs and records: the only one, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def default_processes() -> int:
    """Returns the number of training processes: one per GPU, or up to two on the cores of a machine without GPUs."""
    import torch

    return torch.cuda.device_count() or min(2, torch.cpu.get_capabilities().get("num_physical_cores", 1))


def _run_torchrun(command: list[str], processes: int, answer: Path) -> int:
    """Starts the workers on this machine and returns their exit status.

    They communicate over the loopback interface, whatever the machine's name resolves to.
    """
    processes = processes or default_processes()
    required = {"PET_STANDALONE": "1", "PET_NNODES": "1", "PET_NPROC_PER_NODE": str(processes)}
    required["PET_LOCAL_ADDR"] = "127.0.0.1"  # a container without a network cannot resolve its own name
    defaults = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *command[1:]], env={**defaults, **os.environ, **required})
    try:
        return _wait(process, answer)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # workers save a checkpoint before they end
        try:
            process.wait(GRACE_SECONDS)
        finally:
            process.kill()
        raise


def _wait(process: subprocess.Popen[bytes], answer: Path) -> int:
    """Waits for the workers to end, at most `GRACE_SECONDS` after they have answered; returns their exit status."""
    while True:
        try:
            return process.wait(1.0)
        except subprocess.TimeoutExpired:
            if answer.is_file() and time.time() - answer.stat().st_mtime > GRACE_SECONDS:
                log.warning("the workers answered %.0f s ago but still run; terminating them", GRACE_SECONDS)
                process.terminate()
                process.wait(GRACE_SECONDS)
                return 0
