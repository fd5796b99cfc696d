"""Corpora in published layouts for every test of this folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from corpus_layouts import LAYOUTS


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout[1].__name__)
def published(request, tmp_path) -> tuple[str, Path, dict[str, tuple[str, str, str]]]:
    """A small corpus in each layout: its format, its folder, and clip -> (text, language, speaker)."""
    name, write = request.param
    folder = tmp_path / write.__name__
    return name, folder, write(folder)
