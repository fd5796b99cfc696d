"""Lineage of a model: the tags of its code, data and settings that every run and model version carries."""

import hashlib
import json
import os
import subprocess
from functools import cache
from pathlib import Path

from model.files import write_text

VARIABLE = "MYXTTS_LINEAGE"
DIRTY = "-dirty"
"""Suffix of an image's commit when it was built from changed files (`make images`)."""


def collect(project: Path, code: Path, run_id: str, archive: Path | None = None) -> dict[str, str]:
    """Returns the tags that are known at the start of a pipeline run.

    Steps receive them in the environment instead of as inputs, so that a commit that changes no step re-runs none.

    Args:
        project: Folder with `params.yaml` and `dvc.lock`.
        code: Folder of the source checkout.
        run_id: The pipeline run's name.
        archive: Folder that keeps both files under their hashes: the next run may overwrite them.
    """
    tags = {"kfp.run_id": run_id, **git_state(code)}
    for key, name in (("dvc.lock.sha256", "dvc.lock"), ("params.sha256", "params.yaml")):
        path = project / name
        if path.is_file():
            content = path.read_bytes()
            tags[key] = hashlib.sha256(content).hexdigest()
            if archive is not None:
                write_text(archive / f"{tags[key]}.{name}", content.decode("utf-8"))
    return tags


def git_state(code: Path) -> dict[str, str]:
    """Returns the commit of `code` and whether tracked files differ from it, as tags.

    In an image, `MYXTTS_GIT_SHA` holds the commit, with the suffix `-dirty` if it was built from changed files.
    """
    if built := os.environ.get("MYXTTS_GIT_SHA"):
        sha = built.removesuffix(DIRTY)
        return {"git.sha": sha, "git.dirty": "true" if sha != built else "false"}
    answers = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            answer = subprocess.run(["git", "-C", str(code), *command], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return {"git.sha": "unknown", "git.dirty": "unknown"}  # an unpacked archive has no history
        answers.append(answer.stdout.strip())
    return {"git.sha": answers[0], "git.dirty": "true" if answers[1] else "false"}


def current() -> dict[str, str]:
    """Returns the tags of this step's pipeline run; on a cluster, variables of the pod add the run and the image."""
    tags = json.loads(os.environ.get(VARIABLE, "{}"))
    for tag, variable in (("kfp.run_id", "KFP_RUN_ID"), ("image", "MYXTTS_IMAGE")):
        if value := os.environ.get(variable):
            tags[tag] = value
    if "git.sha" not in tags:
        tags |= _state_of_this_code(os.environ.get("MYXTTS_GIT_SHA", ""))
    return tags


@cache
def _state_of_this_code(built: str) -> dict[str, str]:
    """Returns `git_state` of this package when it is first asked for: later edits are not of the code that runs."""
    return git_state(Path(__file__).parent)
