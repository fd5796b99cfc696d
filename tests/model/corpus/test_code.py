"""Fingerprints of a stage's code: they follow what it runs, and nothing else."""

import pytest

from model.config.data import CorpusConfig
from model.corpus import code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose `model.a` imports `model.b`, and a `model.c` that nothing imports."""
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(code, "_ROOT", tmp_path)

    def write(**modules):
        for name, text in modules.items():
            (tmp_path / "model" / f"{name}.py").write_text(text)

    write(a="from model.b import f\n\n\ndef g():\n    return f()\n", b="def f():\n    return 1\n", c="x = 1\n")
    return write


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"a": "from model.b import f\n\n\ndef g():\n    return f() + 1\n"}, True),
        ({"b": "def f():\n    return 2\n"}, True),
        ({"b": '"""Docs."""\n\n\ndef f():\n    """Docs."""\n    return 1  # why\n'}, False),
        ({"c": "x = 2\n"}, False),
    ],
    ids=["own code", "imported code", "words about it", "unrelated code"],
)
def test_a_fingerprint_follows_the_code_that_runs(package, change, differs):
    before = code.fingerprint(["model.a"])
    package(**change)
    assert (code.fingerprint(["model.a"]) != before) is differs


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_page_is_part_of_the_module_that_it_belongs_to(package, tmp_path, name):
    hashes = []
    for text in ("<p>", "<b>"):
        (tmp_path / "model" / f"{name}.html").write_text(text)
        hashes.append(code.fingerprint(["model.a"]))
    (tmp_path / "model" / "c.html").write_text("<p>")
    assert hashes[0] != hashes[1] == code.fingerprint(["model.a"])


def test_imports_inside_functions_and_of_packages_count(package, tmp_path):
    (tmp_path / "model" / "d").mkdir()
    (tmp_path / "model" / "d" / "__init__.py").write_text("")
    package(a="def g():\n    from model.d import e\n    return e\n", **{"d/e": "x = 1\n"})
    before = code.fingerprint(["model.a"])
    package(**{"d/e": "x = 2\n"})
    assert code.fingerprint(["model.a"]) != before


def test_a_mixed_corpus_depends_on_the_readers_of_its_sources():
    def ingest(*formats: str) -> str:
        sources = [{"format": name, "path": name} for name in formats]
        return code.stage_fingerprints(CorpusConfig(format="mixed", sources=sources))["ingest"]

    assert ingest("ljspeech") != ingest("ljspeech", "vctk") == ingest("vctk", "ljspeech")


def test_each_stage_has_a_fingerprint_of_its_own_in_a_file_of_its_own(tmp_path):
    config = CorpusConfig(format="ljspeech")
    written = code.write_fingerprints(tmp_path, config)
    assert written == code.stage_fingerprints(config)
    assert {path.name: path.read_text().strip() for path in tmp_path.iterdir()} == written
    assert len(set(written.values())) == len(code.STAGES)


def test_ingest_depends_on_the_readers_that_a_corpus_needs():
    one, other = (code.stage_fingerprints(CorpusConfig(format=name)) for name in ("ljspeech", "vctk"))
    assert one["ingest"] != other["ingest"]
    assert (one["validate"], one["split"]) == (other["validate"], other["split"])


def test_ingest_of_recordings_does_not_depend_on_phones_or_settings():
    needed = code._closure(["model.corpus.ingest", "model.corpus.readers.ljspeech"])
    assert not [name for name in needed if name.startswith(("model.config", "model.text.espeak", "model.features"))]
    assert "model.audio.io" in needed
