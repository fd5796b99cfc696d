"""Writes the golden pipeline files (`make goldens`); the tests compare with what it writes."""

import re
from pathlib import Path

from pipelines.compiling import compile_training
from pipelines.profiles import STEPS, Profile, cluster_profile

FOLDER = Path(__file__).with_name("goldens")
IMAGE = "registry.example/myxtts-python@sha256:" + "0" * 64


def golden_texts() -> dict[str, str]:
    """File name -> compiled pipeline, with images that do not change with the code."""
    local = Profile("local", dict.fromkeys(STEPS, "local-python:code-hash"))
    return {
        "training-local.yaml": normalised(compile_training(local)),
        "training-cluster.yaml": normalised(compile_training(cluster_profile(IMAGE))),
    }


def normalised(text: str) -> str:
    """Without the line that names the SDK's release."""
    return re.sub(r"(?m)^sdkVersion: .*$", "sdkVersion: kfp", text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in golden_texts().items():
        (FOLDER / name).write_text(text, "utf-8")
