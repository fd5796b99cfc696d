import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml
from kfp.dsl import base_component

from model.config import resolve
from model.config.resolution import flatten, known_keys
from pipelines.compiling import compile_training
from pipelines.profiles import STEPS, Profile, cluster_profile, local_profile
from pipelines.training import STEP_SECTIONS, arguments

GOLDENS = Path(__file__).with_name("goldens")
IMAGE = "registry.example/myxtts-python@sha256:" + "0" * 64


@pytest.fixture(scope="module")
def golden_texts() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("write_goldens", Path(__file__).with_name("write_goldens.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.golden_texts()


@pytest.fixture(scope="module")
def cluster() -> str:
    return compile_training(cluster_profile(IMAGE))


@pytest.mark.parametrize("name", ["training-local.yaml", "training-cluster.yaml"])
def test_compiled_pipelines_are_the_golden_files(golden_texts, name):
    assert golden_texts[name] == (GOLDENS / name).read_text("utf-8"), "intended? then run `make goldens`"


def test_compiling_twice_gives_the_same_bytes(cluster):
    assert compile_training(cluster_profile(IMAGE)) == cluster


@pytest.mark.parametrize("step", STEPS)
def test_every_component_compiles_to_a_component(step):
    module = importlib.import_module(f"components.{step}.component")
    assert isinstance(getattr(module, step), base_component.BaseComponent)


def test_nothing_is_installed_at_run_time(cluster):
    assert "pip install" not in cluster


def test_no_forbidden_feature_of_kfp_is_used(cluster):
    """Features that the local runner lacks, or that break caching (see kfp's own issues)."""
    pipeline = next(yaml.safe_load_all(cluster))
    text = json.dumps(pipeline)
    for forbidden in ("cacheKey", "workspacePath", "importer", "CreatePVC", "pipeline_job"):
        assert forbidden not in text
    outputs = pipeline["root"]["dag"]["outputs"]["artifacts"].values()
    assert all(len(item["artifactSelectors"]) == 1 for item in outputs)  # a choice between artifacts fails locally
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        assert "kfp.dsl.executor_main" in json.dumps(executor["container"]), name
        assert executor["container"]["image"] == IMAGE
    for name, parameter in pipeline["root"]["inputDefinitions"]["parameters"].items():
        assert parameter == {"parameterType": "STRING"}, name


def test_secrets_stand_by_name_only(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    text = compile_training(cluster_profile(IMAGE))
    assert "AWS_SECRET_ACCESS_KEY" in text
    assert "hunter2" not in text


def test_no_path_of_this_machine_is_compiled_in(cluster):
    assert not re.search(r"(?<![\w.])/(work|home|root|Users|tmp)/", cluster)


def test_local_images_are_named_after_the_code():
    images = local_profile().images
    assert set(images) == set(STEPS)
    assert all(re.fullmatch(r"local-python:[0-9a-f]{12}", image) for image in images.values())
    assert len(set(images.values())) == len(STEPS)


def test_an_image_per_step_reaches_the_pipeline():
    images = {step: f"local-python:{index}" for index, step in enumerate(STEPS)}
    pipeline = next(yaml.safe_load_all(compile_training(Profile("local", images))))
    executors = pipeline["deploymentSpec"]["executors"]
    found = {
        name.removeprefix("exec-").replace("-", "_"): item["container"]["image"] for name, item in executors.items()
    }
    assert found == images


def changed_steps(key: str, value) -> set[str]:
    before, after = (arguments(resolve(overrides=overrides).config, "h", "r", "n") for overrides in ({}, {key: value}))
    return {name.removesuffix("_settings") for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("key", "value", "steps"),
    [
        ("training.max_steps", 7, {"train"}),
        ("loss.mel_loss_weight", 3.0, {"train"}),
        ("features.pitch_fmax", 400.0, {"preprocess"}),
        ("audio.n_mels", 40, {"preprocess", "train", "evaluate"}),
        ("evaluation.max_clips", 3, {"evaluate"}),
        ("registry.max_regression", 0.5, {"gate"}),
        ("study.trials", 3, set()),
        ("split.min_held_out", 9, set()),
    ],
)
def test_a_setting_reaches_the_steps_that_it_concerns_and_no_other(key, value, steps):
    assert changed_steps(key, value) == steps


def test_every_setting_is_told_to_a_step_or_acts_elsewhere():
    elsewhere = {"corpus", "validation", "split", "study"}
    told = {section for sections in STEP_SECTIONS.values() for section in sections}
    assert {key.partition(".")[0] for key in known_keys()} == told | elsewhere


def test_whole_numbers_stay_whole_on_the_way():
    told = json.loads(arguments(resolve().config, "h", "r", "n")["train_settings"])
    assert isinstance(flatten(told)["training.max_steps"], int)
