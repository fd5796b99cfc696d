"""Readers of corpus formats: one module a format, found by its name, and several corpora read as one.

A reader is a module of this package with two functions:

    recognises(folder: Path) -> bool          whether `folder` has this layout
    read(config: CorpusConfig) -> Source      its utterances, and a problem for every row that is none

Its name is what `corpus.format` says; a new one is added to `CorpusFormat` in the schema.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from model.config.schema.data import CorpusConfig, CorpusFormat, SourceConfig
from model.corpus.errors import CorpusError
from model.corpus.problems import Problem
from model.corpus.sources import Source, Utterance

MIXED = "mixed"
RECORDED = tuple(name for name in get_args(CorpusFormat) if name not in (MIXED, "generated"))
"""Formats of recordings, the most particular layouts first: the order in which a folder is tried."""


def reader(name: str) -> ModuleType:
    """The reader of a format."""
    return importlib.import_module(f"{__name__}.{name}")


def read_corpus(config: CorpusConfig) -> Source:
    """The utterances of a corpus, or of several corpora as one (`corpus.format: mixed`).

    Clips of a mixed corpus are named `<source>-<id>`, so that equal names do not meet.

    Raises:
        CorpusError: a folder is not what its format says, or two sources have one name.
    """
    if config.format != MIXED:
        return reader(config.format).read(config)
    if not config.sources:
        raise CorpusError("corpus.format is mixed, but corpus.sources is empty; list there the corpora to mix")
    mixed = Source([])
    taken: set[str] = set()
    for source in config.sources:
        name = source.name or re.sub(r"[^A-Za-z0-9_]+", "_", Path(source.path).name)
        if name in taken:
            raise CorpusError(f"corpus.sources: two of them are named {name!r}; give each a `name` of its own")
        taken.add(name)
        part = reader(source.format).read(_single(config, source, name))
        mixed.utterances.extend(_renamed(utterance, name, source.speaker or name) for utterance in part.utterances)
        mixed.problems.extend(_prefixed(problem, name) for problem in part.problems)
        mixed = replace(mixed, engines=tuple(dict.fromkeys((*mixed.engines, *part.engines))))
    return mixed


def survey(folder: Path) -> dict[str, Any]:
    """What is in a folder of recordings, as settings of `corpus`: one corpus, or several beside each other.

    Raises:
        CorpusError: neither the folder nor any folder in it has a known layout.
    """
    folder = Path(folder).absolute()
    if found := _format_of(folder):
        return {"format": found, "path": str(folder)}
    parts = {path.name: _format_of(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    sources = [{"format": found, "path": name} for name, found in parts.items() if found]
    if not sources:
        raise CorpusError(
            f"{folder}: no known layout ({', '.join(RECORDED)}), nor has any folder in it; the simplest is a "
            "metadata.csv with the columns audio|text|speaker|language and the recordings beside it (docs/corpus.md)"
        )
    if unknown := [name for name, found in parts.items() if not found and not name.startswith(".")]:
        raise CorpusError(
            f"{folder}: holds the corpora {', '.join(source['path'] for source in sources)}, and no known layout in "
            f"{', '.join(unknown)}; move these away, or list the corpora to mix in corpus.sources"
        )
    return {"format": MIXED, "path": str(folder), "sources": sources}


def _format_of(folder: Path) -> str:
    return next((name for name in RECORDED if reader(name).recognises(folder)), "")


def _single(config: CorpusConfig, source: SourceConfig, name: str) -> CorpusConfig:
    """The settings of one source as those of a corpus of its own."""
    told = {
        "name": name,
        "format": source.format,
        "path": str(Path(config.path) / source.path),
        "language": source.language or config.language,
        "speaker": source.speaker or name,
        "sources": (),
    }
    return config.model_copy(update=told)


def _renamed(utterance: Utterance, name: str, own: str) -> Utterance:
    speaker = own if utterance.speaker == own else f"{name}-{utterance.speaker}"
    return replace(
        utterance, id=f"{name}-{utterance.id}", speaker=speaker, origin=f"{name}/{utterance.origin}", source=name
    )


def _prefixed(problem: Problem, name: str) -> Problem:
    return replace(problem, id=problem.id and f"{name}-{problem.id}", file=f"{name}/{problem.file}")
