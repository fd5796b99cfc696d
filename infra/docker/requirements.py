"""Prints the requirements of an image, a part of those in pyproject.toml.

requirements.py train            requirements to install
requirements.py --alone train    requirements to install without their own requirements
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

LIGHT = ("click", "pydantic", "PyYAML")
"""Requirements of the speech system that images without torch need, for settings and commands."""

EXTRAS = {
    "data": ("data",),
    "train": ("deep-speaker", "evaluate", "tracking", "launch"),
    "client": ("data", "pipeline", "tracking"),
}
ALONE = {"data": ("kfp",), "train": ("kfp", "resemblyzer"), "client": ()}


def required(project: dict[str, Any], image: str) -> list[str]:
    """Returns the requirement lines of an image."""
    own = project["dependencies"]
    if image != "train":
        own = [line for line in own if name(line) in {item.lower() for item in LIGHT}]
    extras = project["optional-dependencies"]
    return [*own, *(line for extra in EXTRAS[image] for line in extras[extra])]


def name(line: str) -> str:
    """Returns the name of the distribution in a requirement line, in lower case."""
    return re.split(r"[^\w.-]", line, maxsplit=1)[0].lower()


def main(arguments: list[str]) -> None:
    """Prints the requirements of the image that the arguments name."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    image = arguments[-1]
    lines = ALONE[image] if arguments[0] == "--alone" else required(project, image)
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:])
