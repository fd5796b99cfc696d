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
"""Folders of the splits of a corpus, each of which may have a table."""
FORM = "one row per recording, such as audio|text|speaker"
_SAMPLE = 100
"""Number of rows that are read to recognize a table of recordings."""


def recognizes(folder: Path) -> bool:
    return bool(find_tables(folder, Recordings(folder)))


def find_tables(folder: Path, recordings: Recordings) -> list[Path]:
    """Returns the tables of a corpus: the one with a usual name, else all files that name recordings, also in `PARTS`.

    A file with a usual name and an unreadable encoding counts as a table.
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
    """Returns the utterances of the tables of a folder; paths of recordings are relative to it, or to the table's
    folder.

    `corpus.path` is the folder or the table. Rows without speaker or language get `corpus.speaker` and
    `corpus.language`. A recording that several tables list with the same text is one clip.

    Raises:
        CorpusError: the table does not exist, or its columns are ambiguous.
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
    """Adds the rows of one table.

    Args:
        rows: The rows of the corpus.
        path: The table.
        recordings: Index of the corpus.
        config: Speaker and language of rows without them.
        skip_known: Skip rows that an earlier table has.

    Raises:
        CorpusError: the table cannot be read, or its columns are ambiguous.
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
    """Returns (line number, cell by role) of every row that fits the columns; adds problems of the others."""
    if path.suffix.lower() in JSON_SUFFIXES:
        return _records(rows, path, where)
    lines, columns = _parsed(path, recordings)
    found = []
    if lines and is_unknown_header(lines[0], lines[1:], columns, lambda cell: recordings.find(cell, path.parent)):
        shown = " | ".join(lines[0].cells)
        detail = f"skipped as a header with unknown names: {shown!r}; the columns are inferred from their cells"
        place = f"{where}:{lines[0].number}"
        rows.problems.append(Problem(id="", file=place, reason="header", detail=detail, severity=NOTE))
        lines = lines[1:]
    for line in lines:
        cells, detail = row_cells(line, columns)
        if cells is None:
            rows.refuse(line.cells[0], f"{where}:{line.number}", "wrong_columns", detail)
            continue
        by_role = {role: cells[index] for role in COLUMNS if (index := getattr(columns, role)) is not None}
        if columns.normalized is not None:
            by_role["text"] = cells[columns.normalized] or by_role["text"]
        for role in ("speaker", "language"):
            by_role[role] = "" if is_null(by_role.get(role, "")) else by_role[role]
        found.append((line.number, by_role))
    return found


def _parsed(path: Path, recordings: Recordings) -> tuple[list[Line], Columns]:
    """Returns the rows of a table without its header, and its columns.

    Raises:
        CorpusError: it cannot be read, or its columns are ambiguous.
    """
    text = read_text(path, FORM)
    first = next(line for line in text.split("\n") if line.strip())
    for delimiter in "|\t;,":
        if delimiter in first:
            header, *lines = split_rows(text, delimiter)
            if columns := named_columns(header.cells):
                return lines, columns
    delimiter = delimiter_of([line for line in text.split("\n") if line.strip()][:_SAMPLE])
    lines = split_rows(text, delimiter or "|")
    if lacking := _lacking_header(lines[0].cells):
        raise CorpusError(f"{path.name}:1 in {path.parent}: {lacking}")
    return lines, inferred_columns(lines, lambda cell: recordings.find(cell, path.parent), path)


def _lacking_header(cells: Sequence[str]) -> str:
    """Returns the reason why a first row is an incomplete header; '' if it is none."""
    names = {cell.strip().lower() for cell in cells}
    lacking = [role for role in ("audio", "text") if not names.intersection(COLUMNS[role])]
    if len(lacking) != 1 or not any("." not in cell and cell.strip().lower() in COLUMNS["audio"] for cell in cells):
        return ""
    return f"no column for {lacking[0]} (one of {', '.join(COLUMNS[lacking[0]])})"


def _records(rows: Rows, path: Path, where: str) -> Sequence[tuple[int, Mapping[str, str]]]:
    """Returns (line number, cell by role) of the records of a JSON file; adds problems of those without a recording."""
    table = read_records(path)
    for number, detail in table.misfits:
        rows.refuse("", f"{where}:{number}", "wrong_columns", detail)
    found, keys = [], {key for _, cells in table.rows for key in cells}
    for role in ("audio", "text"):
        usual = COLUMNS[role] + (COLUMNS["id"] if role == "audio" else ())
        if table.rows and not keys.intersection(usual):
            raise CorpusError(f"{where} in {path.parent}: no column for {role} (one of {', '.join(usual)})")
    for number, cells in table.rows:
        by_role = {
            role: next((cells[name] for name in names if cells.get(name)), "") for role, names in COLUMNS.items()
        }
        by_role["audio"] = by_role["audio"] or by_role["id"]
        if by_role["audio"]:
            found.append((number, by_role))
        else:
            rows.refuse("", f"{where}:{number}", "wrong_columns", "names no recording")
    return found


def unreadable_tables(folder: Path) -> list[str]:
    """Returns the reasons why possible tables of a folder cannot be read."""
    reasons = []
    for path in _candidates(folder):
        try:
            read_text(path, FORM)
        except CorpusError as error:
            reasons.append(str(error))
    return reasons


def _name(audio: str, found: Path, folder: Path) -> str:
    """Returns the name of a clip: the path in the table, or in the corpus if the table has an absolute path."""
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
    """Returns whether a file names recordings and their texts; a file with a usual name (`sure`) has weaker
    criteria."""
    try:
        if path.suffix.lower() in JSON_SUFFIXES:
            records = read_records(path).rows[:_SAMPLE]
            cells = [value for _, record in records for key, value in record.items() if key in _NAMING]
            return bool(cells) and (sure or any(recordings.find(cell, path.parent) for cell in cells))
        text = read_text(path, FORM)
    except CorpusError:
        return sure
    head = "\n".join(text.split("\n")[:_SAMPLE])
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
