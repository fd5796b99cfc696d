"""Prints what an image installs, read from pyproject.toml: the step images share its extras, not its whole list.

requirements.py train            what pip resolves
requirements.py --alone train    what goes in without its own requirements
"""

import re
import sys
import tomllib
from pathlib import Path

LIGHT = ("click", "pydantic", "PyYAML")
"""Of the speech system's own requirements, those that its settings and commands need where nothing is computed."""

EXTRAS = {
    "data": ("data",),
    "train": ("deep-speaker", "evaluate", "tracking", "launch"),
    "client": ("data", "pipeline", "tracking"),
}
ALONE = {"data": ("kfp",), "train": ("kfp", "resemblyzer"), "client": ()}


def required(project: dict, image: str) -> list[str]:
    """Requirement lines of an image."""
    own = project["dependencies"]
    if image != "train":
        own = [line for line in own if name(line) in {item.lower() for item in LIGHT}]
    extras = project["optional-dependencies"]
    return [*own, *(line for extra in EXTRAS[image] for line in extras[extra])]


def name(line: str) -> str:
    """Name of the distribution in a requirement line, in lower case."""
    return re.match(r"[\w.-]+", line).group().lower()


def main(arguments: list[str]) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    image = arguments[-1]
    lines = ALONE[image] if arguments[0] == "--alone" else required(project, image)
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:])
