import sys

from imports import third_party

from components import source
from components.register.run import REQUIREMENTS


def names(module: str) -> set[str]:
    return {source._relative_name(path) for path in source.source_files(module)}


def test_closure_holds_what_a_step_runs_and_its_data_files():
    train = names("components.train.run")
    assert {"model/training/trainer.py", "model/config/schema/training.py", "model/config/sizes.yaml"} <= train
    assert "components/tracking.py" in train


def test_evaluation_code_does_not_make_features_stale():
    assert not any(
        name.startswith(("model/evaluation", "model/training")) for name in names("components.preprocess.run")
    )


def test_a_changed_line_changes_the_hash(tmp_path, monkeypatch):
    package = tmp_path / "model"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("def f():\n    from model.b import g\n    return g\n")
    (package / "b.py").write_text("g = 1\n")
    (package / "unrelated.py").write_text("x = 1\n")
    hashes = []
    for change in (None, ("unrelated.py", "x = 2\n"), ("b.py", "g = 2\n"), ("table.yaml", "a: 1\n")):
        if change:
            (package / change[0]).write_text(change[1])
        for cached in (source.code_hash, source.imported_names):
            cached.cache_clear()
        monkeypatch.setattr(source, "_package_root", lambda name: package if name == "model" else None)
        hashes.append(source.code_hash("model.a"))
    source.code_hash.cache_clear()
    source.imported_names.cache_clear()
    assert hashes[0] == hashes[1]
    assert len(set(hashes[1:])) == 3


def test_the_registered_model_pins_all_that_speaking_imports():
    distributions = {"yaml": "PyYAML", "espeakng_loader": "espeakng-loader"}
    needed = third_party("model.synthesis") | {"mlflow", "pandas"}
    needed -= {"h5py"}  # reads a published file once; a registered voice carries those weights as safetensors
    needed = {distributions.get(name, name) for name in needed if name not in sys.stdlib_module_names}
    assert needed <= set(REQUIREMENTS), needed - set(REQUIREMENTS)
