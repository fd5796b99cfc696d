"""Continuous integration runs one part of the slow tests per commit, and all of them over the commits."""

from collections.abc import Iterable

PARTS = 6
"""Each part takes a few minutes on two cores (docs/testing.md)."""


def part_of(names: Iterable[str], commit: str) -> list[str]:
    """The tests that belong to a commit: a function of its hash (hexadecimal) and of the names alone.

    Neighbours in the order of names, which are often of one file and equally slow, are in different parts.
    """
    return sorted(names)[int(commit, 16) % PARTS :: PARTS]
