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

from model.config.data import CorpusConfig, CorpusFormat, SourceConfig
from model.corpus.problems import Problem
from model.corpus.recordings import Recordings
from model.corpus.sources import Source, Utterance
from model.errors import CorpusError

MIXED, TEXT_FILES = "mixed", "text_files"
TABLES = ("ljspeech", "table", "myxtts_v1")
"""Formats whose columns are told by their cells, which may fail."""
DEEPEST = 5
"""Folders below the given one in which corpora are looked for."""
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
        name = source.name or _source_name(Path(source.path).name)
        if name in taken:
            raise CorpusError(f"corpus.sources: two of them are named {name!r}; give each a `name` of its own")
        taken.add(name)
        part = reader(source.format).read(_single(config, source, name))
        mixed.utterances.extend(_renamed(utterance, name, source.speaker or name) for utterance in part.utterances)
        mixed.problems.extend(_prefixed(problem, name) for problem in part.problems)
        mixed.names.update({f"{name}-{clip}": given for clip, given in part.names.items()})
        mixed = replace(mixed, engines=tuple(dict.fromkeys((*mixed.engines, *part.engines))))
    return mixed


def survey(folder: Path) -> dict[str, Any]:
    """What is in a folder of recordings, as settings of `corpus`: one corpus, or several beside or below each other.

    Raises:
        CorpusError: neither the folder nor any folder in it has a known layout, or some recordings lie outside of all.
    """
    folder = Path(folder).absolute()
    found = _format_of(folder)
    if found and found != TEXT_FILES:
        _check(folder, found)
        return {"format": found, "path": str(folder)}
    parts, unknown = _parts(folder, DEEPEST)
    if found and all(form == TEXT_FILES for _, form in parts):
        return {"format": found, "path": str(folder)}
    if not parts:
        if reasons := reader("table").unreadable_tables(folder):
            raise CorpusError("; ".join(reasons))
        raise CorpusError(
            f"{folder}: no known layout ({', '.join(RECORDED)}), nor has any folder in it; the simplest is a "
            "metadata.csv with the columns audio|text|speaker|language and the recordings beside it (docs/corpus.md)"
        )
    names = [path.relative_to(folder).as_posix() for path, _ in parts]
    if unknown:
        raise CorpusError(
            f"{folder}: holds the corpora {', '.join(names)}, and no known layout in "
            f"{', '.join(path.relative_to(folder).as_posix() for path in unknown)}; move these away, or list the "
            "corpora to mix in corpus.sources"
        )
    for path, form in parts:
        _check(path, form)
    if len(parts) == 1:
        return {"format": parts[0][1], "path": str(parts[0][0])}
    plain = [_source_name(Path(name).name) for name in names]
    if len(set(plain)) < len(plain) or any(not name.strip("_") for name in plain):
        plain = [_source_name(name) for name in names]
    unique = [name if name.strip("_") and plain.count(name) == 1 else f"source_{i}" for i, name in enumerate(plain, 1)]
    sources = [
        {"format": form, "path": name} | ({"name": called} if called != _source_name(Path(name).name) else {})
        for (_, form), name, called in zip(parts, names, unique, strict=True)
    ]
    return {"format": MIXED, "path": str(folder), "sources": sources}


def _check(folder: Path, form: str) -> None:
    """Refuse tables that cannot be understood before anything is written.

    Raises:
        CorpusError: as reading the corpus would.
    """
    if form in TABLES:
        reader(form).read(CorpusConfig(format=form, path=str(folder)))


def _parts(folder: Path, depth: int) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Corpora below a folder that is none itself, and the folders with recordings that belong to none of them."""
    parts: list[tuple[Path, str]] = []
    unknown: list[Path] = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))):
        if found := _format_of(path):
            parts.append((path, found))
            continue
        inner, strange = _parts(path, depth - 1) if depth > 1 else ([], [])
        parts += inner
        unknown += strange if inner else [path] * bool(Recordings(path).paths)
    return parts, unknown


def _source_name(folder: str) -> str:
    """A folder's name as a source may be called."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", folder)


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
