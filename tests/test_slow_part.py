"""Parts of the slow tests: determined by the commit, of bounded length, and together all slow tests."""

import re
from pathlib import Path

import pytest
from slow_part import EVERY_COMMIT, LONGEST, PART_SECONDS, part_of, read_seconds, split

ROOT = Path(__file__).parents[1]
SECONDS = {f"tests/test_{letter}.py::test_{number}": 7.0 * number + 3 for letter in "abc" for number in range(12)}


def test_the_parts_hold_every_test_once_and_none_is_too_long():
    parts = split(SECONDS, SECONDS)
    assert sorted(name for part in parts for name in part) == sorted(SECONDS)
    loads = [sum(SECONDS[name] for name in part) for part in parts]
    assert max(loads) <= PART_SECONDS
    assert len(parts) <= 1.5 * sum(loads) / PART_SECONDS


@pytest.mark.parametrize("seconds", [{}, {"long": 1.5 * PART_SECONDS}], ids=["not recorded", "longer than a part"])
def test_a_test_that_fills_a_part_has_one_of_its_own(seconds):
    assert ["long"] in split([*SECONDS, "long"], {**SECONDS, **seconds})


def test_a_test_that_takes_longer_than_a_commit_may_is_in_no_part():
    assert split([*SECONDS, "hours"], {**SECONDS, "hours": LONGEST + 1}) == split(SECONDS, SECONDS)


def test_a_commit_has_one_part_whatever_the_order_of_collection():
    commit = "fcce5f79d0b1e2a34c5d6e7f8091a2b3c4d5e6f7"
    chosen = part_of(SECONDS, commit, SECONDS)
    assert chosen == part_of(reversed(SECONDS), commit, SECONDS)
    assert chosen == part_of(SECONDS, f"{int(commit, 16) % len(split(SECONDS, SECONDS)):x}", SECONDS)


def test_every_commit_has_the_whole_run_and_one_part():
    whole = [f"{EVERY_COMMIT}::test_{number}" for number in range(3)]
    for commit in ("0", "1", "fcce5f79"):
        assert part_of([*SECONDS, *whole], commit, SECONDS) == [*whole, *part_of(SECONDS, commit, SECONDS)]
    assert (ROOT / EVERY_COMMIT).is_file()


def test_every_recorded_test_exists():
    for name in read_seconds():
        path, _, function = name.partition("::")
        assert re.search(rf"^def {function.partition('[')[0]}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), name
