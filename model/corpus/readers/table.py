"""A table of recordings: csv, tsv, txt, json or jsonl, with a header or without, beside or above the audio files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath

from model.config.data import CorpusConfig
from model.corpus.columns import NAMES as COLUMNS
from model.corpus.columns import Columns, inferred_columns, is_unknown_header, named_columns, row_cells
from model.corpus.problems import NOTE, Problem
from model.corpus.readers.rows import Row, Rows
from model.corpus.recordings import Recordings, clean_path, without_suffix
from model.corpus.sources import Source
from model.corpus.tables import JSON_SUFFIXES, Line, delimiter_of, is_null, read_records, read_text, split_rows
from model.errors import CorpusError
from model.text.languages import code_of

NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "manifest.jsonl", "manifest.csv", "manifest.tsv")
SUFFIXES = (".csv", ".tsv", ".txt", ".psv", ".list", ".lst", *JSON_SUFFIXES)
PARTS = ("train", "training", "validation", "valid", "val", "dev", "eval", "test")
"""Folders that may hold a table each: the parts of a corpus that was divided already."""
FORM = "one row for each recording, such as audio|text|speaker"
_LOOKED_AT = 100
"""Rows that are looked at to tell whether a file is a table of recordings."""


def recognises(folder: Path) -> bool:
    return bool(find_tables(folder, Recordings(folder)))


def find_tables(folder: Path, recordings: Recordings) -> list[Path]:
    """The tables of a corpus: the one with a usual name, else every file in it, or in its parts, that names recordings.

    A file whose encoding cannot be read counts where its name says that it is the table.
    """
    for name in NAMES:
        path = folder / name
        if path.is_file() and _looks_like_table(path, recordings, sure=True):
            return [path]
    found = [path for path in _candidates(folder) if _looks_like_table(path, recordings)]
    if found:
        return found
    parts = [folder / part for part in PARTS if (folder / part).is_dir()]
    return [path for part in parts for path in _candidates(part) if _looks_like_table(path, recordings)]


def read(config: CorpusConfig) -> Source:
    """Utterances of the tables of a folder; paths of recordings are relative to it, or to the table's folder.

    `corpus.path` is the folder or the table. Rows without a speaker or language of their own have `corpus.speaker` and
    `corpus.language`. A recording that several tables name with the same text is one clip.

    Raises:
        CorpusError: there is no such table, or it cannot be understood.
    """
    path = Path(config.path)
    folder = path if path.is_dir() else path.parent
    recordings = Recordings(folder) if folder.is_dir() else None
    tables = find_tables(path, recordings) if path.is_dir() and recordings else [path]
    if recordings is None or not tables or not tables[0].is_file():
        raise CorpusError(
            f"{path if path.suffix else path / NAMES[0]}: no such table; write one with the columns audio, text, "
            "speaker, language"
        )
    rows = Rows(folder)
    for number, table in enumerate(tables):
        add_rows(rows, table, recordings, config, skip_known=number > 0)
    return rows.source(recordings.paths)


def add_rows(rows: Rows, path: Path, recordings: Recordings, config: CorpusConfig, skip_known: bool = False) -> None:
    """The rows of one table.

    Args:
        skip_known: Leave out rows that an earlier table has too.

    Raises:
        CorpusError: the table cannot be read, or its columns cannot be told apart.
    """
    known = {(row.audio, row.text) for found in rows.rows.values() for row in found} if skip_known else set()
    where = path.name if path.parent == rows.folder else rows.place(path)
    for number, cells in _cells_of(rows, path, where, recordings):
        audio, text, place = cells["audio"], cells["text"], f"{where}:{number}"
        found = recordings.candidates(audio, path.parent)
        if len(found) > 1:
            listed = ", ".join(rows.place(candidate) for candidate in found[:3])
            detail = f"{audio!r} may be any of {len(found)} recordings ({listed}); name it with its folder"
            rows.refuse(audio, place, "ambiguous_recording", detail)
            continue
        expected = found[0] if found else recordings.expected(audio, path.parent)
        if (expected, text) in known:
            continue
        rows.add(
            Row(
                id=cells.get("id") or _name(audio, expected, rows.folder),
                text=text,
                audio=expected,
                language=code_of(cells.get("language") or config.language),
                speaker=cells.get("speaker") or config.speaker,
                line=place,
            )
        )


def _cells_of(rows: Rows, path: Path, where: str, recordings: Recordings) -> Sequence[tuple[int, Mapping[str, str]]]:
    """(line number, what a clip needs -> cell) of every row that has recording and text; others become problems."""
    if path.suffix.lower() in JSON_SUFFIXES:
        return _records(rows, path, where)
    lines, columns = _parsed(path, recordings)
    found = []
    if lines and is_unknown_header(lines[0], lines[1:], columns, lambda cell: recordings.find(cell, path.parent)):
        shown = " | ".join(lines[0].cells)
        detail = f"taken for a header and not read: {shown!r}; the columns were told by their cells"
        rows.problems.append(Problem("", f"{where}:{lines[0].number}", "header", detail, NOTE))
        lines = lines[1:]
    for line in lines:
        cells, detail = row_cells(line, columns)
        if cells is None:
            rows.refuse(line.cells[0], f"{where}:{line.number}", "wrong_columns", detail)
            continue
        picked = {name: cells[place] for name in COLUMNS if (place := getattr(columns, name)) is not None}
        if columns.normalized is not None:
            picked["text"] = cells[columns.normalized] or picked["text"]
        for name in ("speaker", "language"):
            picked[name] = "" if is_null(picked.get(name, "")) else picked[name]
        found.append((line.number, picked))
    return found


def _parsed(path: Path, recordings: Recordings) -> tuple[list[Line], Columns]:
    """Rows of a table of text without its header, and its columns.

    Raises:
        CorpusError: it cannot be read, or its columns cannot be told apart.
    """
    text = read_text(path, FORM)
    first = next(line for line in text.split("\n") if line.strip())
    for delimiter in "|\t;,":
        if delimiter in first:
            header, *lines = split_rows(text, delimiter)
            if columns := named_columns(header.cells):
                return lines, columns
    delimiter = delimiter_of([line for line in text.split("\n") if line.strip()][:_LOOKED_AT])
    lines = split_rows(text, delimiter or "|")
    if lacking := _lacking_header(lines[0].cells):
        raise CorpusError(f"{path.name}:1 in {path.parent}: {lacking}")
    return lines, inferred_columns(lines, lambda cell: recordings.find(cell, path.parent), path)


def _lacking_header(cells: Sequence[str]) -> str:
    """What a first row lacks that is a header in part; '' for a row."""
    names = {cell.strip().lower() for cell in cells}
    has = {wanted: bool(names.intersection(COLUMNS[wanted])) for wanted in ("audio", "text")}
    lacking = [wanted for wanted, there in has.items() if not there]
    if len(lacking) != 1 or not any("." not in cell and cell.strip().lower() in COLUMNS["audio"] for cell in cells):
        return ""
    return f"no column for {lacking[0]} (one of {', '.join(COLUMNS[lacking[0]])})"


def _records(rows: Rows, path: Path, where: str) -> Sequence[tuple[int, Mapping[str, str]]]:
    table = read_records(path)
    for number, detail in table.misfits:
        rows.refuse("", f"{where}:{number}", "wrong_columns", detail)
    found, keys = [], {key for _, cells in table.rows for key in cells}
    for wanted in ("audio", "text"):
        usual = COLUMNS[wanted] + (COLUMNS["id"] if wanted == "audio" else ())
        if table.rows and not keys.intersection(usual):
            raise CorpusError(f"{where} in {path.parent}: no column for {wanted} (one of {', '.join(usual)})")
    for number, cells in table.rows:
        picked = {
            wanted: next((cells[name] for name in names if cells.get(name)), "") for wanted, names in COLUMNS.items()
        }
        picked["audio"] = picked["audio"] or picked["id"]
        if picked["audio"]:
            found.append((number, picked))
        else:
            rows.refuse("", f"{where}:{number}", "wrong_columns", "names no recording")
    return found


def unreadable_tables(folder: Path) -> list[str]:
    """Why files that may be the table of a folder cannot be read."""
    reasons = []
    for path in _candidates(folder):
        try:
            read_text(path, FORM)
        except CorpusError as error:
            reasons.append(str(error))
    return reasons


def _name(audio: str, found: Path, folder: Path) -> str:
    """What a clip is named by: the path as the table has it, or within the corpus where that is of the whole system."""
    path: PurePath = PurePosixPath(clean_path(audio))
    if path.is_absolute() or ".." in path.parts:
        path = found.relative_to(folder) if found.is_relative_to(folder) else PurePosixPath(path.name)
    return without_suffix(path.as_posix())


def _candidates(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _looks_like_table(path: Path, recordings: Recordings, sure: bool = False) -> bool:
    """Whether a file names recordings and their texts; of a file with a usual name (`sure`) less is asked."""
    try:
        if path.suffix.lower() in JSON_SUFFIXES:
            records = read_records(path).rows[:_LOOKED_AT]
            cells = [value for _, record in records for key, value in record.items() if key in _NAMING]
            return bool(cells) and (sure or any(recordings.find(cell, path.parent) for cell in cells))
        text = read_text(path, FORM)
    except CorpusError:
        return sure
    head = "\n".join(text.split("\n")[:_LOOKED_AT])
    first = next(line for line in text.split("\n") if line.strip())
    for delimiter in "|\t;,":
        if delimiter in first and (columns := named_columns(split_rows(first, delimiter)[0].cells)):
            if sure:
                return True
            lines = split_rows(head, delimiter)[1:]
            names = [line.cells[columns.audio] for line in lines if len(line.cells) > columns.audio]
            return any(recordings.find(name, path.parent) for name in names)
    delimiter = delimiter_of([line for line in head.split("\n") if line.strip()])
    if not delimiter:
        return False
    lines = split_rows(head, delimiter)
    named = [any(recordings.find(cell, path.parent) for cell in line.cells) for line in lines]
    return sure or 2 * sum(named) >= len(named)


_NAMING = frozenset(COLUMNS["audio"] + COLUMNS["id"])
