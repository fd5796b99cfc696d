"""The images contain what their steps import, at the locked versions, and run as an ordinary user."""

import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest
from imports import third_party
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.profiles import STEPS, STUDY_STEPS, image_kind

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "infra" / "docker" / "Dockerfile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
IMAGES = ("data", "train", "client")
CONSTRAINTS = (ROOT / "constraints.txt").read_text("utf-8")
LEFT_OUT = {"pesq"}  # compiled when installed; the report names the metric that it omits without it


def lists():
    spec = importlib.util.spec_from_file_location("requirements", ROOT / "infra" / "requirements.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed_with(lines: list[str]) -> set[str]:
    """Returns all distributions that pip would install for these requirements, by the metadata of this environment."""
    found, waiting = set(), [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in found:
            continue
        found.add(key)
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def contents() -> dict[str, set[str]]:
    """Image -> the distributions in it."""
    module = lists()
    return {image: installed_with(module.required(PROJECT, image)) for image in IMAGES}


@pytest.mark.parametrize("step", [*STEPS, *STUDY_STEPS])
def test_a_steps_image_holds_what_the_step_imports(contents, step):
    held = contents[image_kind(step)]
    distributions = importlib.metadata.packages_distributions()
    imported = third_party(f"components.{step}.run") - set(sys.stdlib_module_names) - LEFT_OUT
    lacking = {
        name for name in imported if not {canonicalize_name(item) for item in distributions.get(name, [])} & held
    }
    assert not lacking
    assert "kfp" in held


def test_only_the_image_that_computes_carries_torch(contents):
    assert {image for image in IMAGES if "torch" in contents[image]} == {"train"}


def test_data_is_fetched_by_what_the_data_image_carries(contents):
    assert {"dvc", "dvc-s3", "boto3"} <= contents["data"]


def test_the_client_serves_mlflow_on_postgresql_and_s3(contents):
    assert {"mlflow", "pg8000", "boto3", "kfp", "kubernetes"} <= contents["client"]


@pytest.mark.parametrize("name", [*IMAGES, "dev", "pico"])
def test_every_version_is_locked_with_hashes(name):
    module = lists()
    entries = module.locked(CONSTRAINTS)
    assert all(re.fullmatch(r"\S+==\S+ \\(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+", item) for item in entries.values())
    assert not installed_with(module.required(PROJECT, name)) - entries.keys()


@pytest.mark.parametrize("group", ["install", "weights"])
def test_what_the_installation_itself_needs_is_locked(group):
    module = lists()
    entries = module.locked(CONSTRAINTS)
    for line in module.required(PROJECT, group):
        requirement = Requirement(line)
        version = entries[canonicalize_name(requirement.name)].partition(" ")[0].partition("==")[2]
        assert requirement.specifier.contains(version)


def test_the_locked_versions_satisfy_the_project():
    """Otherwise `make constraints` was forgotten."""
    module = lists()
    entries = module.locked(CONSTRAINTS)
    lines = [line for name in (*module.EXTRAS, *module.ALONE) for line in module.required(PROJECT, name)]
    for requirement in map(Requirement, lines):
        version = entries[canonicalize_name(requirement.name)].partition(" ")[0].partition("==")[2]
        assert requirement.specifier.contains(version), requirement.name


def test_extras_of_this_package_are_replaced_by_their_requirements():
    extras = {"a": ["one>=1", "myxtts[b,c]"], "b": ["two"], "c": ["myxtts[d]"], "d": ["three[x]>=3"]}
    assert list(lists().expanded(extras, "a")) == ["one>=1", "two", "three[x]>=3"]


def stages() -> dict[str, str]:
    """Returns the lines of each stage of the Dockerfile."""
    found = re.split(r"(?m)^FROM \S+ AS (\S+)$", DOCKERFILE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("image", IMAGES)
def test_images_run_as_an_ordinary_user_and_know_their_commit(image):
    lines = stages()[image]
    assert "USER 10001:10001" in lines
    assert lines.rindex("USER") > lines.rindex("RUN")
    assert "org.opencontainers.image.revision=${GIT_COMMIT}" in lines
    assert "MYXTTS_GIT_SHA=${GIT_COMMIT}" in lines


def test_every_file_that_images_install_is_compared_with_its_hashes():
    commands = re.findall(r"pip (?:install|download) [^&\n]*", DOCKERFILE)
    installing = [line for line in commands if "--dry-run" not in line]
    assert len(installing) == 5
    assert all("--require-hashes" in line for line in installing)
    assert all("-c constraints.txt" in line or "-r install.txt" in line for line in installing)
    assert DOCKERFILE.count("&& pip check") == len(IMAGES)
