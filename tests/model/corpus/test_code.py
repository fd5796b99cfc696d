"""Fingerprints of a stage's code: they follow what it runs, and nothing else."""

import pytest

from model.config.schema.data import CorpusConfig
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


def test_ingest_depends_on_the_readers_that_a_corpus_needs():
    one, other = (code.stage_fingerprints(CorpusConfig(format=name)) for name in ("ljspeech", "vctk"))
    assert one["ingest"] != other["ingest"]
    assert (one["validate"], one["split"]) == (other["validate"], other["split"])


def test_ingest_of_recordings_does_not_depend_on_phones_or_settings():
    needed = code._closure(["model.corpus.ingest", "model.corpus.readers.ljspeech"])
    assert not [name for name in needed if name.startswith(("model.config", "model.text.espeak", "model.features"))]
    assert "model.audio.io" in needed
