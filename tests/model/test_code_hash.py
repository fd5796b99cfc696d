import pytest

from model import code_hash as hashing


def names(module: str) -> set[str]:
    return {hashing.relative_name(path) for path in hashing.source_files(module)}


def test_closure_holds_what_a_step_runs_and_its_data_files():
    train = names("components.train.run")
    assert {"model/training/trainer.py", "model/config/training.py"} <= train
    assert "model/text/languages.py" not in train
    assert "components/tracking.py" in train


def test_evaluation_code_does_not_make_features_stale():
    assert not any(
        name.startswith(("model/evaluation", "model/training")) for name in names("components.preprocess.run")
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Returns a function that rewrites a file of a package `model` and returns the hash of `model.start`."""
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "unrelated").mkdir()
    texts = {
        "__init__.py": "",
        "start.py": "import os\nfrom model.named import f\n\n\ndef g():\n    from model.late import h\n    return h\n",
        "named.py": "import model.dotted\nfrom .relative import x\nf = 1\n",
        "dotted.py": "from model.part import inner\n",
        "relative.py": "x = 1\n",
        "late.py": "h = 1\n",
        "unrelated.py": "x = 1\n",
        "part/__init__.py": "",
        "part/inner.py": "y = 1\n",
        "part/table.tsv": "a\n",
        "unrelated/table.tsv": "a\n",
    }
    monkeypatch.setattr(hashing, "_package_root", lambda name: folder if name == "model" else None)

    def write(name: str, text: str) -> str:
        (folder / name).write_text(text)
        for cached in (hashing.code_hash, hashing.imported_names):
            cached.cache_clear()
        return hashing.code_hash("model.start")

    for name, text in texts.items():
        write(name, text)
    yield write
    for cached in (hashing.code_hash, hashing.imported_names):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("start.py", True),
        ("named.py", True),
        ("dotted.py", True),
        ("relative.py", True),
        ("late.py", True),
        ("__init__.py", True),
        ("part/__init__.py", True),
        ("part/inner.py", True),
        ("unrelated.py", False),
    ],
)
def test_a_changed_line_changes_the_hash_of_what_imports_it(package, name, differs):
    before = package(name, "z = 1\nfrom model.named import f\nfrom model.late import h\n")
    assert (package(name, "z = 2\nfrom model.named import f\nfrom model.late import h\n") != before) is differs


@pytest.mark.parametrize("suffix", ["yaml", "txt", "tsv", "json", "safetensors"])
def test_data_files_of_every_kind_are_part_of_the_code_beside_them(package, suffix):
    hashes = [package(f"part/data.{suffix}", text) for text in ("a", "b", "b")]
    assert hashes[0] != hashes[1] == hashes[2]


@pytest.mark.parametrize("name", ["part/README.md", "part/inner.cpython-311.pyc", "unrelated/table.tsv"])
def test_notes_compiled_files_and_data_of_other_packages_are_not(package, name):
    assert package(name, "a") == package(name, "b")


def test_data_under_another_name_is_other_data(package, tmp_path):
    before = package("part/data.txt", "words")
    (tmp_path / "model" / "part" / "data.txt").unlink()
    assert package("part/dates.txt", "words") != before


def test_comments_docstrings_and_formatting_do_not_count(package):
    before = package("named.py", "def f(a, b):\n    return a + b\n")
    assert (
        package("named.py", '"""Docs."""\n\n\ndef f(a,\n      b):\n    """Docs."""\n    return a + b  # why\n')
        == before
    )
    assert package("named.py", "def f(a, b):\n    return a - b\n") != before


def test_a_page_belongs_to_the_module_of_its_name_alone(package):
    assert package("part/inner.html", "<p>") != package("part/inner.html", "<b>")
    assert package("part/other.html", "<p>") == package("part/other.html", "<b>")


def test_several_modules_are_hashed_together_and_packages_left_out(package):
    package("unrelated.py", "x = 1\n")
    one, both = hashing.code_hash("model.start"), hashing.code_hash("model.start", "model.unrelated")
    assert one != both
    assert hashing.code_hash("model.start", exclude=("model.part",)) != one


@pytest.mark.parametrize(
    ("module", "limit", "never"),
    [
        ("model.training.trainer", 60, ("model/vocoder", "model/evaluation", "model/corpus", "model/synthesis")),
        ("model.acoustic.model", 15, ("model/features", "model/training", "model/loop", "model/text")),
    ],
)
def test_a_module_imports_only_the_layers_below_it(module, limit, never):
    files = names(module)
    assert len(files) <= limit, sorted(files)
    assert [name for name in files if name.startswith(never)] == []
