"""Runs every slow test by itself and writes its CPU seconds to `slow_seconds.json` (`make slow-seconds`).

CPU time rather than wall time: other work on the machine hardly changes it. Names on the command line are measured
alone, and the others keep their seconds.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "shared"))

from slow_part import SECONDS, read_seconds  # noqa: E402 - after the folder of shared modules is on the path

SELECTED = "slow and not docker"


def slow_tests() -> list[str]:
    """Returns the names of all slow tests."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-m",
        SELECTED,
        "-o",
        "addopts=--import-mode=importlib",
    ]
    listed = subprocess.run(
        [*command, "-q", "--no-header"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [line for line in listed.splitlines() if "::" in line]


def cpu_seconds_of(name: str) -> float | None:
    """Returns the CPU seconds of one test with its fixtures, None if it did not pass."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "pytest", "-m", SELECTED, name], cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return None if done.returncode else round(seconds, 1)


def main() -> None:
    """Measures the tests and writes the file after each."""
    known = slow_tests()
    recorded = {name: value for name, value in (read_seconds() if SECONDS.is_file() else {}).items() if name in known}
    failed = []
    for name in sys.argv[1:] or known:
        seconds = cpu_seconds_of(name)
        if seconds is None:
            failed.append(name)
            continue
        recorded[name] = seconds
        SECONDS.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", "utf-8")
    if failed:
        raise SystemExit("did not pass, not recorded: " + ", ".join(failed))


if __name__ == "__main__":
    main()
