"""Folders that the stages write: made beside their place and moved there whole, so that nobody reads half of one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.corpus.manifest import MANIFEST
from model.errors import CorpusError


@contextmanager
def stage_folder(destination: Path) -> Iterator[Path]:
    """A new folder that takes the place of `destination` when the block ends without an exception.

    Raises:
        CorpusError: `destination` holds something that no stage has written.
    """
    destination = Path(destination).absolute()
    ours = (destination / MANIFEST).is_file() or (destination.is_dir() and not any(destination.iterdir()))
    if destination.exists() and not ours:
        raise CorpusError(f"{destination}: holds other files and would be replaced; name a new or empty folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if destination.exists():
            shutil.rmtree(destination)
        os.replace(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
