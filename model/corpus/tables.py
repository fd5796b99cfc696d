"""Parsing of tables: delimiters, quotes, cells over several lines, JSON lines, encodings."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.errors import CorpusError

DELIMITERS = "|\t;,"
FIRST_ONLY = ": "
"""Delimiters that only end the first cell of a line, tried last: `BASIC5000_0001:text`, `clip1 text`."""
MAX_CELL_LINES = 20
"""A quoted cell with more lines has no closing quote."""
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_NULLS = frozenset(("null", "none", "nan", "n/a", "<na>"))


@dataclass(frozen=True)
class Line:
    """Cells of a row and the number of its first line in the file."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Table with a header: (line number, cell by column) of its rows, and (line number, reason) of malformed lines."""

    rows: Sequence[tuple[int, Mapping[str, str]]]
    misfits: list[tuple[int, str]] = field(default_factory=list)


def read_text(path: Path, form: str) -> str:
    """Returns the text of a file without byte order mark and with `\\n` at the end of lines.

    Raises:
        CorpusError: the file is missing, empty or not UTF-8; the message has the expected `form` of its lines.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); it should have {form}") from error
    if encoding := _wide_encoding(data):
        raise CorpusError(
            f"{path}: the text is {encoding}, not UTF-8 (spreadsheets call it Unicode text); save it as UTF-8, e.g. "
            f"`iconv -f {encoding.lower()} -t utf-8`"
        )
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x}, number {error.start + 1} of the line); "
                "save the file as UTF-8, e.g. `iconv -f latin1 -t utf-8`"
            ) from error
    text = data.decode("utf-8")
    if not text.strip():
        raise CorpusError(f"{path}: the file is empty; it should have {form}")
    return text


def read_lines(path: Path, form: str) -> list[tuple[int, str]]:
    """Returns (line number, line) of every line that is not blank.

    Raises:
        CorpusError: as `read_text`.
    """
    return [(number, line) for number, line in enumerate(read_text(path, form).split("\n"), 1) if line.strip()]


def delimiter_of(lines: Sequence[str]) -> str:
    """Returns the delimiter of lines: one that is equally frequent in most lines, else one of `FIRST_ONLY`, else ''."""
    best, chosen = 0.0, ""
    for delimiter in DELIMITERS:
        counts = Counter(_count(line, delimiter) for line in lines)
        usual, members = max(((n, m) for n, m in counts.items() if n), key=lambda item: item[1], default=(0, 0))
        if usual and members / len(lines) > best:
            best, chosen = members / len(lines), delimiter
    if best >= 0.5:
        return chosen
    colons = sum(":" in line.split(maxsplit=1)[0][1:] for line in lines)
    spaces = sum(len(line.split(maxsplit=1)) == 2 for line in lines)
    return ":" if colons == len(lines) else " " if spaces == len(lines) else ""


def split_rows(text: str, delimiter: str) -> list[Line]:
    """Returns the rows of a table, in which quoted cells may span lines.

    With other delimiters than comma and semicolon, quotes are usually part of the text: there a quoted cell may span
    lines only if the row is incomplete otherwise."""
    physical = text.split("\n")
    if delimiter in FIRST_ONLY:
        split = [(number, line.strip().partition(delimiter)) for number, line in enumerate(physical, 1)]
        return [Line(number, (first.strip(), rest.strip())) for number, (first, _, rest) in split if first]
    quoted = delimiter in ",;"
    widths = Counter(line.count(delimiter) for line in physical if line.strip())
    usual = widths.most_common(1)[0][0] if widths else 0
    rows, index = [], 0
    while index < len(physical):
        line = physical[index]
        if not line.strip():
            index += 1
            continue
        taken, cells = 1, None
        following = physical[index + 1] if index + 1 < len(physical) else ""
        broken = line.count(delimiter) < usual or (following.strip() and following.count(delimiter) < usual)
        if quoted or (broken and '"' in line):
            taken, cells = _quoted_row(physical[index : index + MAX_CELL_LINES], delimiter, None if quoted else usual)
        if cells is None:
            cells = next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE))
        rows.append(Line(index + 1, tuple(" ".join(_unquoted(cell).split()) for cell in cells)))
        index += taken
    return rows


def read_records(path: Path) -> Table:
    """Reads a JSON lines file or a JSON list of objects, without `null` cells.

    Raises:
        CorpusError: as `read_text`.
    """
    text = read_text(path, "one JSON object per recording")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    whole = _whole_json(text) if len(lines) > 1 or text.lstrip().startswith("[") else None
    records = list(enumerate(whole, 1)) if whole is not None else []
    misfits = []
    for number, line in lines if whole is None else ():
        try:
            records.append((number, json.loads(line)))
        except json.JSONDecodeError as error:
            misfits.append((number, f"not JSON: {error}"))
    rows = [(number, _cells(record)) for number, record in records if isinstance(record, Mapping)]
    misfits += [
        (number, f"a JSON {type(record).__name__}, not an object")
        for number, record in records
        if not isinstance(record, Mapping)
    ]
    return Table(rows, misfits)


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Reads a table with a header (`|`, tab, comma or semicolon), or JSON lines.

    Raises:
        CorpusError: as `read_text`, or the header lacks one of `columns`.
    """
    if path.suffix.lower() in JSON_SUFFIXES:
        return read_records(path)
    text = read_text(path, f"a header with the columns {', '.join(columns)}, and one row per recording")
    header_line = next(line for line in text.split("\n") if line.strip())
    delimiter = max(DELIMITERS, key=header_line.count)
    first, *lines = split_rows(text, delimiter)
    header = [column_name(name) for name in first.cells]
    if missing := [name for name in columns if name not in header]:
        raise CorpusError(f"{path}: its header {header} lacks the column {', '.join(missing)}; add it")
    fitting = [(line.number, fitted(line.cells, len(header))) for line in lines]
    rows = [(number, dict(zip(header, cells, strict=True))) for number, cells in fitting if len(cells) == len(header)]
    misfits = [
        (number, f"{len(cells)} columns instead of {len(header)} ({delimiter.join(header)})")
        for number, cells in fitting
        if len(cells) != len(header)
    ]
    return Table(rows, misfits)


def fitted(cells: Sequence[str], width: int) -> tuple[str, ...]:
    """Returns cells without empty ones beyond `width`, which a delimiter at the end of a line adds."""
    cells = tuple(cells)
    while len(cells) > width and not cells[-1]:
        cells = cells[:-1]
    return cells


def column_name(name: str) -> str:
    """Returns the normalized name of a column: `File Name` is `file_name`."""
    return "_".join(name.strip().strip('"').lower().replace("-", " ").split())


def is_null(cell: str) -> bool:
    """Returns whether a cell is empty or a null value of a program."""
    return not cell or cell.lower() in _NULLS


def _whole_json(text: str) -> list[Any] | None:
    """Returns the records of a text that is one JSON value: a list, an object with a list, or an object by ids."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return None
    if isinstance(whole, Mapping):
        lists = [value for value in whole.values() if isinstance(value, list)]
        if len(lists) == 1:
            return lists[0]
        if all(isinstance(value, (Mapping, str)) for value in whole.values()):
            return [{"id": name, **({"text": it} if isinstance(it, str) else it)} for name, it in whole.items()]
    return whole if isinstance(whole, list) else None


def _cells(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns the cells of a JSON object; a nested object (`audio: {path: ...}`) is its path, null is left out."""
    cells = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            value = value.get("path")
        if value is None or isinstance(value, list) or (isinstance(value, float) and math.isnan(value)):
            continue
        cells[column_name(str(key))] = " ".join(str(value).split())
    return cells


def _quoted_row(lines: Sequence[str], delimiter: str, width: int | None) -> tuple[int, list[str] | None]:
    """Returns (number of lines, cells) of a row that may have quoted cells over several lines; (1, None) if it has not.

    Args:
        width: Required number of delimiters; None accepts any.
    """
    for taken in range(1, len(lines) + 1):
        try:
            rows = list(csv.reader(["\n".join(lines[:taken])], delimiter=delimiter, strict=True))
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                continue  # the quote is not closed yet
            break
        if len(rows) == 1 and (width is None or len(rows[0]) == width + 1):
            return taken, rows[0]
    if width is None and lines[0].count('"') % 2 == 0:  # quotes inside a cell, which spreadsheets keep
        return 1, next(csv.reader([lines[0]], delimiter=delimiter))
    return 1, None


def _unquoted(cell: str) -> str:
    """Returns a cell without enclosing quotes; quotes that are part of the text are kept."""
    cell = cell.strip()
    inner = cell[1:-1]
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _count(line: str, delimiter: str) -> int:
    """Returns the number of delimiters of a line outside of quoted cells."""
    if delimiter in ",;" and '"' in line:
        return len(next(csv.reader([line], delimiter=delimiter), [""])) - 1
    return line.count(delimiter)


def _wide_encoding(data: bytes) -> str:
    """Returns `UTF-16` or `UTF-32` if the bytes have this encoding, else ''."""
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    head = data[:512]
    zeros = head.count(0)
    return "UTF-16" if len(head) > 3 and zeros > len(head) // 4 else ""
