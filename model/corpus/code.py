"""Fingerprints of the code behind each data stage, so that changed code makes DVC run again what it made."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from model.config.data import CorpusConfig

STAGES = ("ingest", "validate", "split")
_ROOT = Path(__file__).parents[2]
_SETTINGS = "model.config"
"""DVC follows settings as parameters, one by one; their schema is no part of a stage's code."""


def stage_fingerprints(config: CorpusConfig) -> dict[str, str]:
    """Stage -> hash (16 hex digits) of all modules of this package that it runs; comments and docstrings left out.

    Of the readers only those count that the corpus needs.
    """
    formats = {config.format, *(source.format for source in config.sources)} - {"mixed"}
    readers = [f"model.corpus.readers.{name}" for name in formats]
    return {stage: fingerprint([f"model.corpus.{stage}", *(readers if stage == "ingest" else [])]) for stage in STAGES}


def write_fingerprints(folder: Path, config: CorpusConfig) -> dict[str, str]:
    """Write one file a stage into `folder`."""
    found = stage_fingerprints(config)
    folder.mkdir(parents=True, exist_ok=True)
    for stage, value in found.items():
        partial = folder / f".{stage}.{os.getpid()}.partial"
        partial.write_text(value + "\n", "utf-8")
        os.replace(partial, folder / stage)
    return found


def fingerprint(modules: Iterable[str]) -> str:
    """Hash of modules of `model` and of all that they import from it."""
    digest = hashlib.sha256()
    for name, path in sorted(_closure(modules).items()):
        digest.update(f"{name}\n{_bare(path)}\n".encode())
        page = path.with_suffix(".html")
        if page.is_file():
            digest.update(page.read_bytes())
    return digest.hexdigest()[:16]


def _closure(modules: Iterable[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in found or name.startswith(_SETTINGS):
            continue
        found[name] = path
        waiting += _imported(path)
    return found


def _file(module: str) -> Path | None:
    place = _ROOT.joinpath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imported(path: Path) -> list[str]:
    """Modules that a file names in its imports; `from a import b` may mean `a` or `a.b`."""
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("model"):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _bare(path: Path) -> str:
    """The code of a file without its comments and docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                item for item in body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
            ]
    return ast.dump(tree)
