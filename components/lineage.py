"""Where a model comes from: the tags that every run and model version carries."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

VARIABLE = "MYXTTS_LINEAGE"
DIRTY = "-dirty"
"""Suffix of an image's commit when it was built from changed files (`make images`)."""


def collect(project: Path, code: Path, run_id: str) -> dict[str, str]:
    """Tags known at the start of a pipeline run.

    They travel to the steps in the environment, not as inputs: a commit that changes no step must not re-run it.

    Args:
        project: Folder with `params.yaml` and `dvc.lock`.
        code: Folder of the source checkout.
        run_id: The pipeline run's name.
    """
    tags = {"kfp.run_id": run_id, **git_state(code)}
    for key, name in (("dvc.lock.sha256", "dvc.lock"), ("params.sha256", "params.yaml")):
        path = project / name
        if path.is_file():
            tags[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return tags


def git_state(code: Path) -> dict[str, str]:
    """Commit of `code` and whether tracked files differ from it.

    An image names its commit in `MYXTTS_GIT_SHA`, with the suffix `-dirty` when it was built from changed files.
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
    """The tags that the pipeline's target handed to this step: on a cluster, run and image as variables of the pod."""
    tags = json.loads(os.environ.get(VARIABLE, "{}"))
    for tag, variable in (("kfp.run_id", "KFP_RUN_ID"), ("image", "MYXTTS_IMAGE")):
        if value := os.environ.get(variable):
            tags[tag] = value
    if "git.sha" not in tags:
        tags |= git_state(Path(__file__).parent)
    return tags
