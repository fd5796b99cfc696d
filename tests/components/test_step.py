"""How a step's process ends."""

import os
import sys

import pytest

from components.runner import QuickExit


@pytest.mark.parametrize("status", [0, 1, 130])
def test_a_step_that_is_over_ends_its_process_with_its_status(status, monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    QuickExit(status)()
    assert left == [status]


def test_a_step_that_is_not_over_and_an_executor_that_failed_after_it_end_as_python_ends(monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    QuickExit()()
    monkeypatch.setattr(sys, "last_value", OSError("no room for the outputs"), raising=False)
    QuickExit(0)()
    assert not left
