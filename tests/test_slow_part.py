"""Parts of the slow tests: a function of the commit, and together all of them."""

from slow_part import PARTS, part_of

NAMES = [f"tests/test_{letter}.py::test_{number}" for letter in "abc" for number in range(5)]


def test_the_parts_hold_every_test_once():
    parts = [part_of(NAMES, f"{number:x}") for number in range(PARTS)]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_commit_has_one_part_whatever_the_order_of_collection():
    commit = "fcce5f79d0b1e2a34c5d6e7f8091a2b3c4d5e6f7"
    assert part_of(NAMES, commit) == part_of(reversed(NAMES), commit)
    assert part_of(NAMES, commit) == part_of(NAMES, f"{int(commit, 16) % PARTS:x}")
