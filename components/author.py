"""Author of a change: the person or service account, the machine, and the code that was run."""

import getpass
import os
import socket
import sys
from itertools import takewhile
from pathlib import Path

from pydantic.dataclasses import dataclass

from components import lineage

SERVICE_ACCOUNT, NAMESPACE = "MYXTTS_SERVICE_ACCOUNT", "MYXTTS_NAMESPACE"
"""Environment variables of a pod: its Kubernetes service account and namespace."""


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who changed something, and with which code.

    Attributes:
        user: User of MLflow's server (`MLFLOW_TRACKING_USERNAME`), else the account of the operating system.
        host: Name of the machine, or of the pod.
        identity: Service account, as Kubernetes names it; '' outside a cluster.
        commit: Git commit of the code, with the suffix `-dirty` if tracked files differed from it.
    """

    user: str
    host: str
    identity: str
    commit: str


def this_author() -> Author:
    """Returns the author of what this process does."""
    code = lineage.current()
    account, namespace = os.environ.get(SERVICE_ACCOUNT, ""), os.environ.get(NAMESPACE, "")
    return Author(
        user=user_name(),
        host=socket.gethostname(),
        identity=f"system:serviceaccount:{namespace}:{account}" if account else "",
        commit=code["git.sha"] + (lineage.DIRTY if code["git.dirty"] == "true" else ""),
    )


def user_name() -> str:
    """Returns the user of MLflow's server, else the account of this process, which in a container may have no name."""
    if named := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def mlflow_tags() -> dict[str, str]:
    """Returns the tags by which MLflow's pages show the user, program and commit of a run."""
    code = lineage.current()
    tags = {
        "mlflow.user": user_name(),
        "mlflow.source.name": _program(sys.argv),
        "mlflow.source.type": "JOB" if os.environ.get("KUBERNETES_SERVICE_HOST") else "LOCAL",
    }
    return tags if code["git.sha"] == "unknown" else {**tags, "mlflow.source.git.commit": code["git.sha"]}


def _program(arguments: list[str]) -> str:
    """Returns the step of a pipeline, the subcommand, or else the program of this process."""
    step = "--function_to_execute"  # of KFP's executor
    if step in arguments[:-1]:
        return f"step {arguments[arguments.index(step) + 1]}"
    program = Path(arguments[0]).name
    if program == "myxtts":
        return " ".join([program, *takewhile(lambda word: not word.startswith("-"), arguments[1:3])])
    module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    return module or program
