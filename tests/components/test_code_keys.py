"""Code hashes in the keys of the steps: which edits make which results stale."""

from pathlib import Path

import pytest

from model import code_hash as hashing
from model.code_hash import code_hash, relative_name, source_files
from pipelines.profiles import STEPS

ROOT = Path(hashing.__file__).parents[1]
TRAINERS = ("model.training.trainer", "model.vocoder_training.trainer")
"""Modules whose code is part of the keys of trainings; the other keys hold the code of a whole step."""
SOURCES = sorted(path.relative_to(ROOT).as_posix() for top in hashing.PACKAGES for path in (ROOT / top).rglob("*.py"))


def code_keys() -> dict[str, str]:
    """Returns the code hash of each step and each trainer."""
    return {name: code_hash(name) for name in (*(f"components.{step}.run" for step in STEPS), *TRAINERS)}


def other_words(content: bytes) -> bytes:
    """Returns a source with a changed docstring, a comment and blank lines."""
    start = content.startswith(b'"""')
    return (content.replace(b'"""', b'"""Rewritten. ', 1) if start else content) + b"\n\n# A comment.\n\n"


def test_comments_docstrings_and_blank_lines_in_every_package_change_no_key(edit):
    before = code_keys()
    for name in SOURCES:
        edit(name, other_words)
    assert code_keys() == before


@pytest.mark.parametrize(
    ("folder", "stale"),
    [
        ("model/vocoder", {"finetune_vocoder", "evaluate", "gate", "model.vocoder_training.trainer"}),
        ("model/vocoder_training", {"finetune_vocoder", "model.vocoder_training.trainer"}),
        ("model/evaluation", {"evaluate", "register", "gate"}),
        ("model/training", {"train", "model.training.trainer"}),
        ("components/gate", {"evaluate", "register", "gate"}),
    ],
)
def test_statements_change_the_keys_of_the_steps_that_run_them(edit, folder, stale):
    before = code_keys()
    for name in SOURCES:
        if name.startswith(f"{folder}/"):
            edit(name)
    after = code_keys()
    changed = {name.removeprefix("components.").removesuffix(".run") for name in before if before[name] != after[name]}
    assert changed == stale


def test_training_covers_no_vocoder():
    files = {relative_name(path) for path in source_files("model.training.trainer")}
    assert not [name for name in files if name.startswith(("model/vocoder/", "model/vocoder_training/"))]
    assert len(files) <= 60
