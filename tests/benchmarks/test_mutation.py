"""Every committed mutant still fits the tree, and the runner reports which mutants the tests detect."""

import ast
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from benchmarks.mutation import MUTANTS, Mutant, MutantError, choose, main, read_mutants

ROOT = Path(__file__).parents[2]
COMMITTED = read_mutants()


@cache
def defined_names(name: str) -> set[str]:
    """Returns the names of functions and classes in a file of tests."""
    return {node.name for node in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))) if hasattr(node, "name")}


@pytest.mark.parametrize("mutant", COMMITTED, ids=lambda mutant: f"{mutant.area}/{mutant.name}")
def test_a_committed_mutant_fits_the_tree(mutant):
    mutated = mutant.apply(ROOT)
    if mutant.file.endswith(".py"):
        compile(mutated, mutant.file, "exec")
    for test in mutant.tests:
        name, _, function = test.partition("::")
        assert (ROOT / name).exists(), test
        if function:
            assert function.partition("[")[0].split("::")[-1] in defined_names(name), test


def test_every_list_has_mutants():
    assert {path.stem for path in MUTANTS.iterdir()} == {mutant.area for mutant in COMMITTED}


def entry(name: str, find: str, replace: str) -> dict:
    return {"name": name, "file": "program.py", "find": find, "replace": replace, "tests": ["test_program.py"]}


@pytest.fixture
def tree(tmp_path) -> Path:
    """A program of three functions under version control, and tests that check one of them."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "program.py").write_text(
        "def double(x):\n    return 2 * x\n\n\ndef halve(x):\n    return x / 2\n\n\ndef wait():\n    return\n"
    )
    (root / "test_program.py").write_text(
        "from program import double, halve, wait\n\n\n"
        "def test_double():\n    wait()\n    assert double(3) == 6\n\n\ndef test_halve_runs():\n    halve(3)\n"
    )
    subprocess.run(["git", "init", "--quiet", root], check=True)
    subprocess.run(["git", "-C", root, "add", "."], check=True)
    return root


@pytest.fixture
def run(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the program under test needs no plugin

    def run_(entries: list[dict], *options: str):
        folder = tmp_path / "mutants"
        folder.mkdir(exist_ok=True)
        (folder / "area.yaml").write_text(yaml.safe_dump(entries))
        before = (tree / "program.py").read_bytes()
        result = CliRunner().invoke(main, ["--mutants", str(folder), "--root", str(tree), "--jobs", "1", *options])
        assert (tree / "program.py").read_bytes() == before
        return result

    return run_


def outcomes(output: str) -> dict[str, str]:
    lines = [line for line in output.splitlines() if " s  area/" in line]
    return {line.split("area/")[1].split()[0]: line[:20].strip() for line in lines}


def test_killed_and_survived_mutants_are_distinguished_and_the_tree_is_restored_between_them(run):
    noticed, unnoticed = entry("doubled", "2 * x", "3 * x"), entry("halved", "x / 2", "x / 3")
    result = run([noticed, unnoticed, entry("unreadable", "2 * x", "2 *")])
    assert outcomes(result.output) == {"doubled": "killed", "halved": "survived", "unreadable": "killed"}
    assert "test_program.py::test_double" in result.output
    assert result.exit_code == 1
    total = result.output.splitlines()[-1].split("|")
    assert [cell.strip() for cell in total[1:-1]] == ["total", "3", "2", "1", "0"]


def test_all_killed_is_success_and_a_hanging_mutant_is_killed(run):
    hanging = entry("hangs", "return\n", "while True: pass\n")
    result = run([hanging], "--time-limit", "3", "--skip-check")
    assert outcomes(result.output) == {"hangs": "killed (time limit)"}
    assert result.exit_code == 0


def test_a_mutant_that_does_not_fit_or_names_no_test_is_an_error(run):
    ambiguous, elsewhere = entry("ambiguous", "return", "pass"), entry("elsewhere", "2 * x", "x")
    elsewhere["tests"] = ["test_program.py::test_nothing"]
    result = run([ambiguous, elsewhere], "--skip-check")
    assert outcomes(result.output) == {"ambiguous": "error", "elsewhere": "error"}
    assert "`find` occurs 3 times in program.py" in result.output
    assert result.exit_code == 1


def test_tests_that_fail_without_a_mutant_are_reported_before_any_is_tried(run, tree):
    (tree / "test_program.py").write_text("def test_broken():\n    assert False\n")
    result = run([entry("doubled", "2 * x", "3 * x")])
    assert result.exit_code == 2
    assert "do not pass without a mutant" in result.output
    assert outcomes(result.output) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": []}, "must be a list of files"),
        ({"find": ""}, "may be empty"),
        ({"replace": "2 * x"}, "same as `find`"),
        ({"note": "x"}, "must have exactly the fields"),
    ],
)
def test_a_malformed_entry_is_refused(tmp_path, change, message):
    (tmp_path / "area.yaml").write_text(yaml.safe_dump([{**entry("doubled", "2 * x", "3 * x"), **change}]))
    with pytest.raises(MutantError, match=message):
        read_mutants(tmp_path)


def test_names_are_unique_and_choices_must_exist(tmp_path):
    for area in ("one", "two"):
        (tmp_path / f"{area}.yaml").write_text(yaml.safe_dump([entry("same", "2 * x", "3 * x")]))
    with pytest.raises(MutantError, match="2 mutants are called same"):
        read_mutants(tmp_path)
    mutants = [
        Mutant(area=area, name=name, file="f", find="a", replace="b", tests=("t",)) for area, name in ("ax", "by")
    ]
    assert choose(mutants, [], []) == mutants
    assert choose(mutants, ["a"], ["y"]) == mutants
    assert choose(mutants, ["b"], []) == mutants[1:]
    for areas, names in ((["c"], []), ([], ["c"])):
        with pytest.raises(MutantError, match="there are: "):
            choose(mutants, areas, names)
