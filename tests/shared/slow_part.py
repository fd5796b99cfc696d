"""Continuous integration runs one part of the slow tests per commit, and all of them over the commits."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

SECONDS = Path(__file__).parents[1] / "slow_seconds.json"
"""CPU seconds of each slow test when it runs alone, written by `make slow-seconds`."""

PART_SECONDS = 120.0
"""CPU seconds of one part, unless a single test takes longer."""


EVERY_COMMIT = "tests/pipelines/test_whole_run.py"
"""File of slow tests that every commit runs: the whole pipeline without doubles."""

LONGEST = 2 * PART_SECONDS
"""CPU seconds of the longest test in a part; `make test-slow` runs those that take longer."""


def read_seconds() -> dict[str, float]:
    """Returns the recorded seconds by test."""
    return json.loads(SECONDS.read_text("utf-8"))


def split(names: Iterable[str], seconds: Mapping[str, float]) -> list[list[str]]:
    """Splits tests into the fewest parts that a greedy split finds within `PART_SECONDS` each.

    The longest test comes first, each into the part with the least work. A test that is not recorded fills a part; one
    that takes longer than `LONGEST` is in none.
    """
    size = {name: seconds.get(name, PART_SECONDS) for name in names if seconds.get(name, 0.0) <= LONGEST}
    longest_first = sorted(size, key=lambda name: (-size[name], name))
    count = max(1, math.ceil(sum(size.values()) / PART_SECONDS))
    while True:
        parts: list[list[str]] = [[] for _ in range(count)]
        loads = [0.0] * count
        for name in longest_first:
            least = loads.index(min(loads))
            parts[least].append(name)
            loads[least] += size[name]
        if all(load <= PART_SECONDS or len(part) == 1 for part, load in zip(parts, loads, strict=True)):
            return [sorted(part) for part in parts]
        count += 1


def part_of(names: Iterable[str], commit: str, seconds: Mapping[str, float]) -> list[str]:
    """Returns the tests of a commit: those of every commit, and one part, chosen by its hash (hexadecimal)."""
    names = list(names)
    always = [name for name in names if name.startswith(EVERY_COMMIT)]
    parts = split((name for name in names if name not in always), seconds)
    return [*always, *parts[int(commit, 16) % len(parts)]]
