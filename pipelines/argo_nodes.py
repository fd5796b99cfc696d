"""Maps the nodes of an Argo workflow to the pipeline's steps and their attempts.

Kubeflow Pipelines reports a run as Argo's nodes: the workflow itself, `root`, drivers, one node per step and, below it,
`executor` with one node per attempt (`executor(0)`, `executor(1)`, ...). An annotation of a pod contains the full name
of its node (`<workflow>.root.train.executor(1)`); the name of the pod contains only a template and a hash.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.profiles import STEPS, STUDY_STEPS

NODE_NAME = "workflows.argoproj.io/node-name"
"""Annotation of all pods of a workflow."""
PARTS = ("preprocess_part", "preprocess_joined")
"""Steps that replace `preprocess` if `cluster.preprocess_parts` is above 1."""
KNOWN = frozenset((*STEPS, *STUDY_STEPS, *PARTS))
ATTEMPT = re.compile(r"executor\((\d+)\)")
INDEX = re.compile(r"\([^)]*\)$")
ORDER = ("FAILED", "CANCELING", "RUNNING", "PAUSED", "PENDING", "SUCCEEDED", "SKIPPED")
"""If a step has several nodes, such as the parts of `preprocess`, its state is the first of these that a node has."""
BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StepStatus:
    """Status of a step of a run.

    Attributes:
        state: State of its node, in the terms of Kubeflow Pipelines.
        attempts: Number of its pods so far; 0 if it was taken from the cache or has not started.
    """

    state: str
    attempts: int = 0


def step_statuses(tasks: Iterable[Any]) -> dict[str, StepStatus]:
    """Returns the status of each step of a run, in the order in which they started.

    The node of an attempt does not name its step: it belongs to the step that started last before it.

    Args:
        tasks: The `task_details` of a run.
    """
    tasks = list(tasks)
    nodes = sorted((task for task in tasks if _step(task.display_name) and task.state), key=_started)
    attempts: dict[str, int] = {}
    for task in tasks:
        found = ATTEMPT.fullmatch(task.display_name or "")
        earlier = [_step(node.display_name) for node in nodes if _started(node) <= _started(task)]
        if found and earlier and task.state not in (None, "SKIPPED"):
            attempts[earlier[-1]] = max(attempts.get(earlier[-1], 0), int(found[1]) + 1)
    states: dict[str, str] = {}
    for node in nodes:
        step = _step(node.display_name)
        states[step] = min((states.get(step, node.state), node.state), key=_rank)
    return {step: StepStatus(state, attempts.get(step, 0)) for step, state in states.items()}


def step_of_pod(annotations: dict[str, str] | None) -> tuple[str, int] | None:
    """Returns (step, attempt from 0) of a pod; `None` for drivers and other helpers."""
    *path, last = (annotations or {}).get(NODE_NAME, "").split(".")
    if not path or INDEX.sub("", last) != "executor":
        return None
    attempt = ATTEMPT.fullmatch(last)
    return INDEX.sub("", path[-1]).replace("-", "_"), int(attempt[1]) if attempt else 0


def _step(display_name: str | None) -> str:
    step = (display_name or "").replace("-", "_")
    return step if step in KNOWN else ""


def _started(task: Any) -> datetime:
    return task.start_time or BEFORE_ALL


def _rank(state: str) -> int:
    return ORDER.index(state) if state in ORDER else len(ORDER)
