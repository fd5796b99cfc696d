"""Argo's nodes are mapped to steps and attempts."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import argo_names
import pytest

from pipelines.argo_nodes import KNOWN, StepStatus, step_of_pod, step_statuses


def node(name, state, at):
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=at)
    return SimpleNamespace(display_name=name, state=state, start_time=start)


def test_attempts_belong_to_the_step_that_started_before_them():
    tasks = [
        node("preprocess", "SUCCEEDED", 10),
        node("executor(0)", "SUCCEEDED", 10),
        node("train-driver", "SUCCEEDED", 15),
        node("executor(1)", "RUNNING", 300),
        node("executor(0)", "FAILED", 20),
        node("train", "RUNNING", 20),
        node("myxtts-training-abcde", "RUNNING", 0),
    ]
    assert step_statuses(tasks) == {"preprocess": StepStatus("SUCCEEDED", 1), "train": StepStatus("RUNNING", 2)}


def test_a_step_that_was_served_from_the_cache_had_no_attempt():
    tasks = [node("train", "SUCCEEDED", 20), node("executor", "SKIPPED", 20), node("executor(0)", "SKIPPED", 20)]
    assert step_statuses(tasks) == {"train": StepStatus("SUCCEEDED", 0)}


@pytest.mark.parametrize(
    ("states", "shown"), [(("SUCCEEDED", "RUNNING"), "RUNNING"), (("RUNNING", "FAILED"), "FAILED")]
)
def test_parts_side_by_side_are_one_step(states, shown):
    tasks = [node("preprocess-part", state, 10) for state in states]
    assert step_statuses(tasks)["preprocess_part"].state == shown


def test_tasks_without_name_or_state_are_left_out():
    assert step_statuses([SimpleNamespace(display_name=None, state=None, start_time=None), node("gate", None, 1)]) == {}


@pytest.mark.parametrize("step", sorted(KNOWN))
@pytest.mark.parametrize("attempt", [0, 2])
def test_a_pods_step_is_read_from_its_annotation(step, attempt):
    name = argo_names.executor_node("myxtts-training-abcde", step.replace("_", "-"), attempt)
    assert step_of_pod({argo_names.NODE_NAME: name}) == (step, attempt)


@pytest.mark.parametrize(
    "name",
    [
        "wf(0).root(0).for-loop-1(0).iteration(1:1/2)(0).preprocess-part(0).executor(0)",
        "wf.root.preprocess-part.executor",
    ],
)
def test_attempts_of_enclosing_nodes_and_of_loops_do_not_matter(name):
    assert step_of_pod({argo_names.NODE_NAME: name}) == ("preprocess_part", 0)


@pytest.mark.parametrize("annotations", [None, {}, {argo_names.NODE_NAME: "wf.root.train-driver(0)"}])
def test_drivers_and_other_pods_are_of_no_step(annotations):
    assert step_of_pod(annotations) is None
