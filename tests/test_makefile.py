"""`make install` succeeds if only an optional package fails to install."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PIP = """#!/bin/sh
echo "$*" >>"{log}"
case "$*" in *{failing}*) echo "error: command 'cc' failed" >&2; exit 1;; esac
"""


@pytest.fixture
def install(tmp_path):
    """Runs `make install` with a `pip` that fails when an argument contains `failing`, and records its calls."""

    def run(failing: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        for name, text in {
            "python": "#!/bin/sh\nexit 1\n",
            "pip": PIP.format(log=tmp_path / "calls", failing=failing),
        }.items():
            (venv / "bin" / name).write_text(text)
            (venv / "bin" / name).chmod(0o755)
        done = subprocess.run(
            ["make", "-C", str(ROOT), "install", f"VENV={venv}"],
            capture_output=True,
            text=True,
            env=os.environ | {"MAKEFLAGS": ""},
            timeout=60,
        )
        assert (venv / "installed").is_file() == (done.returncode == 0)
        return done, (tmp_path / "calls").read_text().splitlines()

    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return run


def test_a_machine_without_a_compiler_installs_everything_else(install):
    done, calls = install("pico")
    assert done.returncode == 0, done.stderr
    assert "ttspico was not built" in done.stdout
    log = Path(done.stdout.partition("log: ")[2].partition(")")[0])
    assert "command 'cc' failed" in (ROOT / log).read_text()
    assert [call for call in calls if "-e .[dev]" in call]
    assert all("-c constraints.txt" in call or "--no-deps resemblyzer==" in call for call in calls)


def test_the_optional_engine_is_tried(install):
    done, calls = install("nothing-fails")
    assert done.returncode == 0, done.stderr
    assert "not built" not in done.stdout
    assert [call for call in calls if ".[pico]" in call]


def test_a_requirement_that_fails_fails_the_installation(install):
    assert install("resemblyzer")[0].returncode != 0
