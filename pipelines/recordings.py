"""A folder of recordings as DVC can follow it: without the broken links and ignore files that make DVC give up."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

IGNORE_FILE = ".dvcignore"
"""DVC refuses a dependency that holds one."""


def followable(recordings: Path, project: Path) -> Path:
    """The folder itself, or a folder of links to all its files that DVC can hash, kept in `project` and brought up to
    date at every call. What is left out is missing there, so that `ingest` names it.

    Args:
        recordings: Absolute path.
        project: Folder that may get the links.
    """
    kept = {path.relative_to(recordings): path for path, fits in _files(recordings) if fits}
    if all(fits for _, fits in _files(recordings)):
        return recordings
    mirror = mirror_of(recordings, project)
    mirror.mkdir(parents=True, exist_ok=True)
    for path, _ in _files(mirror):
        relative = path.relative_to(mirror)
        if relative not in kept or path.readlink() != kept[relative]:
            path.unlink()
    for relative, path in kept.items():
        link = mirror / relative
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return mirror


def mirror_of(recordings: Path, project: Path) -> Path:
    """Where the links to a folder's files are kept."""
    return project / f"recordings-{hashlib.sha256(str(recordings).encode()).hexdigest()[:6]}"


def _files(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Files below a folder, and whether DVC can hash each; folders behind links are entered, each once."""
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        for name in files:
            path = Path(root) / name
            yield path, path.is_file() and name != IGNORE_FILE
