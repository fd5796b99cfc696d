"""Rewrites constraints.txt: the versions of all direct and indirect requirements of pyproject.toml, and the hashes of
all their files. `make constraints` runs it.

Versions stay as they are as long as they satisfy pyproject.toml; `lock.py --upgrade` takes the newest. The hashes of
torch are those of the package index and of the build that pip finds as it is configured: builds for CPUs or another
CUDA are in folders and on indexes of their own, so run it once with each that is used. Known hashes are kept while
the version is the same.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from requirements import SEVERAL_BUILDS, locked

ROOT = Path(__file__).parents[1]
FILE = ROOT / "constraints.txt"
HEADER = "# Versions and hashes of everything that is installed; `make constraints` writes this file.\n"
NEVER_INSTALLED = ("typing", "webrtcvad")
"""Requirements of the wheel of weights, which is downloaded as a file and not installed."""


def resolve(options: list[str]) -> str:
    """Returns the resolved versions with the hashes of all their files, for Linux and the Python of the images.

    Raises:
        subprocess.CalledProcessError: they could not be resolved; the resolver has printed the reason.
    """
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--all-extras", "--group", "install",
        "--group", "weights", "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28",
        "--generate-hashes", "--no-annotate", "--no-header", "--output-file", str(FILE), *options,
    ]  # fmt: skip
    for name in NEVER_INSTALLED:
        command += ["--no-emit-package", name]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return FILE.read_text("utf-8")


def found_by_pip(requirement: str) -> str:
    """Returns the SHA-256 of the file that pip chooses for a requirement as it is configured here."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
    done = subprocess.run([*command, "--report", "-", requirement], check=True, capture_output=True, text=True)
    (item,) = json.loads(done.stdout)["install"]
    return str(item["download_info"]["archive_info"]["hashes"]["sha256"])


def with_hashes(text: str, distribution: str, sha256: set[str]) -> str:
    """Returns constraints in which an entry has these hashes too."""
    entry = locked(text)[distribution]
    version = entry.partition(" ")[0]
    every = sorted({*re.findall(r"sha256:(\w+)", entry), *sha256})
    return text.replace(entry, " \\\n".join([version, *(f"    --hash=sha256:{item}" for item in every)]))


def main(options: list[str]) -> None:
    """Rewrites the constraints."""
    before = locked(FILE.read_text("utf-8"))[SEVERAL_BUILDS]
    text = resolve(options)
    after = locked(text)[SEVERAL_BUILDS].partition(" ")[0]
    known = set(re.findall(r"sha256:(\w+)", before)) if before.partition(" ")[0] == after else set()
    FILE.write_text(HEADER + with_hashes(text, SEVERAL_BUILDS, {*known, found_by_pip(after)}), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
