"""Readers of corpus formats, one module per format, and of mixed corpora.

A reader is a module of this package, named like its format in `CorpusFormat`, with two functions:

    recognizes(folder: Path) -> bool          whether `folder` has this layout
    read(config: CorpusConfig) -> Source      its utterances, and problems of rows without an utterance
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
from model.corpus.recordings import Recordings, check_links
from model.corpus.sources import Source, Utterance
from model.errors import CorpusError

MIXED, TEXT_FILES = "mixed", "text_files"
TABLES = ("ljspeech", "table", "myxtts_v1")
"""Formats whose columns may have to be inferred, which may fail."""
MAX_DEPTH = 5
"""Levels of folders below the given one in which corpora are searched."""
_CUT = "cut the recording into sentences, and list them in a metadata.csv with the columns audio|text (docs/corpus.md)"
_SAVE = "save it as metadata.csv (UTF-8) with the columns audio|text (docs/corpus.md)"
UNREAD = {
    **dict.fromkeys((".srt", ".vtt", ".sbv", ".ass"), f"subtitles are not read: their times are rough; {_CUT}"),
    **dict.fromkeys((".textgrid", ".eaf"), f"annotations of Praat and ELAN are not read; {_CUT}"),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), f"spreadsheets are not read; {_SAVE}"),
    **dict.fromkeys((".docx", ".odt", ".rtf", ".pdf"), f"documents are not read; {_SAVE}"),
    ".json": f"one JSON file per recording is not read, nor a list without names of recordings; {_SAVE}",
    ".trn": f"transcripts in .trn files are not read; {_SAVE}",
}
"""Suffix of unsupported transcripts -> why they are not read, and what to do instead."""
RECORDED = tuple(name for name in get_args(CorpusFormat) if name not in (MIXED, "generated"))
"""Formats of recordings in the order in which a folder is tried, the most specific ones first."""


def reader(name: str) -> ModuleType:
    """Returns the reader of a format."""
    return importlib.import_module(f"{__name__}.{name}")


def read_corpus(config: CorpusConfig) -> Source:
    """Returns the utterances of a corpus, or of all sources of a mixed corpus.

    Clip ids of a mixed corpus are `<source>-<id>`, so that they are unique.

    Raises:
        CorpusError: a folder does not have the layout of its format or contains a link that leads out of it, or two
            sources have the same name.
    """
    if config.format != MIXED:
        return _read(config)
    if not config.sources:
        raise CorpusError("corpus.format is mixed, but corpus.sources is empty; list the corpora to mix in it")
    parts: list[tuple[str, SourceConfig, Source]] = []
    for source in config.sources:
        name = source.name or _source_name(Path(source.path).name)
        if name in {other for other, _, _ in parts}:
            raise CorpusError(f"corpus.sources: two of them are named {name!r}; give each a different `name`")
        parts.append((name, source, _read(_single(config, source, name))))
    return Source(
        utterances=[_renamed(item, name, own.speaker or name) for name, own, part in parts for item in part.utterances],
        problems=[_prefixed(problem, name) for name, _, part in parts for problem in part.problems],
        engines={language: engine for _, _, part in parts for language, engine in part.engines.items()},
        names={f"{name}-{clip}": given for name, _, part in parts for clip, given in part.names.items()},
    )


def _read(config: CorpusConfig) -> Source:
    """Returns the utterances of a corpus that is not mixed."""
    if config.format != "generated" and not config.follow_links:
        check_links(_folder(Path(config.path)))
    return reader(config.format).read(config)


def _folder(path: Path) -> Path:
    """Returns the folder of a corpus whose path may be that of a table."""
    return path.parent if path.is_file() else path


def survey(folder: Path, follow_links: bool = False) -> dict[str, Any]:
    """Detects the corpora in a folder of recordings and returns them as settings of `corpus`.

    Args:
        folder: The recordings.
        follow_links: Whether links may lead out of the folder.

    Raises:
        CorpusError: neither the folder nor any folder below has a known layout, recordings are outside of all corpora,
            or a link leads out of the folder.
    """
    folder = Path(folder).absolute()
    if not follow_links:
        check_links(folder)
    found = _format_of(folder)
    if found and found != TEXT_FILES:
        _check(folder, found)
        return {"format": found, "path": str(folder)}
    parts, unknown = _parts(folder, MAX_DEPTH)
    if found and all(form == TEXT_FILES for _, form in parts):
        return {"format": found, "path": str(folder)}
    if not parts:
        if reasons := [*reader("table").unreadable_tables(folder), *unread_transcripts(folder)]:
            raise CorpusError("; ".join(reasons))
        raise CorpusError(
            f"{folder}: no known layout ({', '.join(RECORDED)}), here or in a folder below; the simplest is a "
            "metadata.csv with the columns audio|text|speaker|language and the recordings beside it (docs/corpus.md)"
        )
    names = [path.relative_to(folder).as_posix() for path, _ in parts]
    if unknown:
        raise CorpusError(
            f"{folder}: has the corpora {', '.join(names)}, but no known layout in "
            f"{', '.join(path.relative_to(folder).as_posix() for path in unknown)}; move these folders away, or list "
            "the corpora to mix in corpus.sources"
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


def unread_transcripts(folder: Path) -> list[str]:
    """Returns why transcripts in a folder or the folders directly below are not read; empty if there are none."""
    found = (path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.suffix.lower() in UNREAD)
    first = min(found, default=None)
    return [f"{first}: {UNREAD[first.suffix.lower()]}"] if first else []


def _check(folder: Path, form: str) -> None:
    """Reads a corpus whose columns may be ambiguous, to fail before anything is written.

    Raises:
        CorpusError: as `read_corpus`.
    """
    if form in TABLES:
        reader(form).read(CorpusConfig(format=form, path=str(folder)))


def _parts(folder: Path, depth: int) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Returns the corpora below a folder, and the folders with recordings that belong to none of them."""
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
    """Returns a folder's name as the name of a source."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", folder)


def _format_of(folder: Path) -> str:
    return next((name for name in RECORDED if reader(name).recognizes(folder)), "")


def _single(config: CorpusConfig, source: SourceConfig, name: str) -> CorpusConfig:
    """Returns the settings of one source as those of a single corpus."""
    settings = {
        "name": name,
        "format": source.format,
        "path": str(Path(config.path) / source.path),
        "language": source.language or config.language,
        "speaker": source.speaker or name,
        "sources": (),
    }
    return config.model_copy(update=settings)


def _renamed(utterance: Utterance, name: str, own: str) -> Utterance:
    speaker = own if utterance.speaker == own else f"{name}-{utterance.speaker}"
    return replace(
        utterance, id=f"{name}-{utterance.id}", speaker=speaker, origin=f"{name}/{utterance.origin}", source=name
    )


def _prefixed(problem: Problem, name: str) -> Problem:
    return replace(problem, id=problem.id and f"{name}-{problem.id}", file=f"{name}/{problem.file}")
