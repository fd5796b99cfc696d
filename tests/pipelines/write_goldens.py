"""Writes the golden pipeline files (`make goldens`); the tests compare with what it writes."""

import re
from pathlib import Path

from model.config.resolution import resolve
from model.config.schema import Config
from pipelines.compiling import compile_study, compile_training, manifests
from pipelines.profiles import STEPS, Profile, cluster_profile, study_steps

FOLDER = Path(__file__).with_name("goldens")
IMAGES = {
    f"cluster.{kind}_image": f"registry.example/myxtts-python-{kind}@sha256:" + "0" * 64 for kind in ("data", "train")
}
BIG = {
    "model_size": "big",
    "cluster.backend_version": "2.17",
    "cluster.node_selector": ["accelerator=h100"],
    "cluster.tolerations": ["nvidia.com/gpu:NoSchedule"],
    "cluster.queue": "training",
    "cluster.image_pull_secret": "registry",
    "cluster.s3_endpoint": "http://s3.storage:8333",
    "cluster.accelerators": 4,
    "launch.launcher": "torchrun",
    "launch.processes": 4,
}
SEVERAL_NODES = {"model_size": "big", "launch.launcher": "trainjob", "launch.nodes": 2}


def golden_texts() -> dict[str, str]:
    """Returns file name -> compiled pipeline, with images that do not change with the code."""
    images = dict.fromkeys(STEPS, "local-python:code-hash")
    profiles = {
        "training-local.yaml": Profile(name="local", images=images),
        "training-docker.yaml": Profile(name="docker", images=images, retries=2),
        "training-cluster.yaml": cluster_profile(cluster_config({})),
        "training-cluster-big.yaml": cluster_profile(cluster_config(BIG)),
        "training-cluster-nodes.yaml": cluster_profile(cluster_config(SEVERAL_NODES)),
    }
    texts = {name: compile_training(profile) for name, profile in profiles.items()}
    study = dict.fromkeys(study_steps(then_train=True), "local-python:code-hash")
    texts["study-local.yaml"] = compile_study(Profile(name="local", images=study), workers=2, then_train=False)
    texts["study-docker.yaml"] = compile_study(
        Profile(name="docker", images=study, retries=2), workers=2, then_train=False
    )
    texts["study-cluster.yaml"] = compile_study(profiles["training-cluster-big.yaml"], workers=4, then_train=True)
    texts["manifests.yaml"] = manifests(profiles["training-cluster.yaml"], "myxtts", "0" * 40)
    return {name: normalized(text) for name, text in texts.items()}


def cluster_config(changes: dict) -> Config:
    """Returns the settings of a cluster with images that do not exist."""
    return resolve(overrides={**IMAGES, **changes}).config


def normalized(text: str) -> str:
    """Returns a compiled pipeline without the release of the SDK."""
    return re.sub(r"(?m)^( *)sdkVersion: .*$", r"\1sdkVersion: kfp", text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in golden_texts().items():
        (FOLDER / name).write_text(text, "utf-8")
