"""Imports point one way: pipelines -> components -> model; a component's file needs only kfp."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPONENTS = sorted(ROOT.glob("components/*/component.py"))
PLATFORM = {"kfp", "mlflow", "dvc", "optuna", "boto3"}


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path, module_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if module_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", sources("model"), ids=lambda path: str(path.relative_to(ROOT)))
def test_model_imports_nothing_of_the_platform(path):
    assert not imported(path) & (PLATFORM | {"components", "pipelines"})


@pytest.mark.parametrize("path", sources("components"), ids=lambda path: str(path.relative_to(ROOT)))
def test_components_import_nothing_of_pipelines(path):
    assert "pipelines" not in imported(path)


@pytest.mark.parametrize("path", sources("components"), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_steps_of_a_study_import_optuna(path):
    assert "optuna" not in imported(path) or path.parent.name == "studies"


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.parent.name)
def test_a_component_file_imports_only_kfp_and_the_standard_library(path):
    assert imported(path, module_level_only=True) <= {"kfp"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sources("components", "pipelines"), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_kfp_cannot_read(path):
    names = [
        alias.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in ("__future__", "typing")
        for alias in node.names
    ]
    assert "annotations" not in names  # component signatures would become strings
    assert path.name != "component.py" or "Literal" not in names


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.parent.name)
def test_every_component_has_its_function(path):
    assert path.with_name("run.py").is_file()


def test_the_packages_are_those_of_this_checkout():
    code = "import model, components, pipelines; print(model.__file__, components.__file__, pipelines.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert [Path(path).parents[1] for path in done.stdout.split()] == [ROOT] * 3


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['myxtts', '--help']; from pipelines.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert not loaded & (PLATFORM | {"torch", "numpy", "librosa", "yaml", "pydantic", "scipy"})
