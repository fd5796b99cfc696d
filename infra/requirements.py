"""Prints requirements of pyproject.toml as a list for pip, whose versions and hashes are in constraints.txt.

requirements.py train                  what an image, or `dev`, contains
requirements.py --locked install       the same with versions and hashes, for a pip that ignores hashes of constraints
requirements.py --build FILE LIST      such a list with the build of torch that pip reported in FILE

Of several builds of one version, such as torch for CPUs and for CUDA, pip prefers the highest, which is the one of the
extra index or folder of wheels. But once hashes are given it prefers files whose address states the hash, which those
in a folder do not. So pip is asked first, without hashes (`pip install --dry-run --report FILE`).
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIGHT = ("click", "pydantic", "pyyaml")
"""Requirements of the speech system that images without torch need, for settings and commands."""
EXTRAS = {
    "data": ("data", "step"),
    "train": ("deep-speaker", "evaluate", "launch", "step", "tracking"),
    "client": ("data", "mlflow-auth", "pipeline", "tracking"),
    "dev": ("dev",),
}
ALONE = ("pico",)
"""Extras that are installed after everything else."""
SEVERAL_BUILDS = "torch"
"""Distribution of which one version has several builds, with a list of its own."""


def required(project: dict[str, Any], name: str) -> list[str]:
    """Returns the requirement lines of an image, of `dev`, of `torch`, of an extra in `ALONE` or of a dependency group.

    Args:
        project: Content of pyproject.toml.
        name: What is installed.
    """
    if name in project["dependency-groups"]:
        return list(project["dependency-groups"][name])
    extras = project["project"]["optional-dependencies"]
    if name in ALONE:
        return list(extras[name])
    own = project["project"]["dependencies"]
    if name == SEVERAL_BUILDS:
        return [line for line in own if distribution(line) == name]
    if name in ("data", "client"):
        own = [line for line in own if distribution(line) in LIGHT]
    added = [line for extra in EXTRAS[name] for line in expanded(extras, extra)]
    return list(dict.fromkeys([*own, *added]))


def expanded(extras: dict[str, list[str]], extra: str) -> Iterator[str]:
    """Yields the lines of an extra, with those of the extras of this package that it names."""
    for line in extras[extra]:
        if distribution(line) == "myxtts":
            for inner in line.partition("[")[2].rstrip("]").split(","):
                yield from expanded(extras, inner)
        else:
            yield line


def distribution(line: str) -> str:
    """Returns the name of the distribution in a requirement line, normalized as in PEP 503."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line, maxsplit=1)[0]).lower()


def with_build(lines: list[str], report: dict[str, Any]) -> list[str]:
    """Returns requirement lines of which those of reported distributions ask for exactly the reported build."""
    found = {distribution(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}
    return [f"{name}=={found[name]}" if (name := distribution(line)) in found else line for line in lines]


def locked(constraints: str) -> dict[str, str]:
    """Returns the entries of constraints.txt, each with its hashes, by the name of the distribution."""
    entries = re.findall(r"(?m)^\w.*(?:\n    --hash=.*)*", constraints)
    return {distribution(entry): entry for entry in entries}


def main(arguments: list[str]) -> None:
    """Prints the requirements that the arguments name."""
    if arguments[0] == "--build":
        report, plain = (Path(argument).read_text("utf-8") for argument in arguments[1:])
        lines = with_build(plain.splitlines(), json.loads(report))
    else:
        lines = required(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8")), arguments[-1])
    if arguments[0] == "--locked":
        known = locked((ROOT / "constraints.txt").read_text("utf-8"))
        lines = [known[distribution(line)] for line in lines]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:])
