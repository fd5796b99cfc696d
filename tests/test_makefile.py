"""`make install` succeeds if only an optional package fails to install."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PIP = """#!/bin/sh
echo "$*" >>"{log}"
case "$*" in *--report*)
  for last; do :; done
  echo '{{"install": [{{"metadata": {{"name": "torch", "version": "0+cpu"}}}}]}}' >"$last";;
esac
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
    done, calls = install("pico.txt")
    assert done.returncode == 0, done.stderr
    assert "ttspico was not built" in done.stdout
    log = Path(done.stdout.partition("log: ")[2].partition(")")[0])
    assert "command 'cc' failed" in (ROOT / log).read_text()
    assert [call for call in calls if "dev-build.txt" in call]


def test_everything_is_compared_with_hashes_and_nothing_is_left_inconsistent(install):
    """Except this package itself, which is installed without its requirements."""
    done, calls = install("nothing-fails")
    assert done.returncode == 0, done.stderr
    own = [call for call in calls if call.endswith("-e .")]
    (checked,) = (call for call in calls if call.endswith(" check"))
    asked = [call for call in calls if "--dry-run" in call]
    assert own
    assert all("--no-deps" in call and "--no-build-isolation" in call for call in own)
    assert all("--require-hashes" in call for call in calls if call not in (*own, *asked, checked))
    assert calls.index(checked) == len(calls) - 1


def test_the_build_of_torch_is_the_one_that_pip_finds_without_hashes(install, tmp_path):
    done, calls = install("nothing-fails")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "venv" / "requirements" / "dev-build.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("torch")] == ["torch==0+cpu"]
    (asked,) = (number for number, call in enumerate(calls) if "--dry-run" in call)
    assert "--require-hashes" not in calls[asked]
    assert asked < next(number for number, call in enumerate(calls) if "dev-build.txt" in call)


def test_the_optional_engine_is_tried(install):
    done, calls = install("nothing-fails")
    assert done.returncode == 0, done.stderr
    assert "not built" not in done.stdout
    assert [call for call in calls if "pico.txt" in call]


def test_a_requirement_that_fails_fails_the_installation(install):
    assert install("weights.txt")[0].returncode != 0
