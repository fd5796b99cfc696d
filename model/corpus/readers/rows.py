"""What readers share: text files line by line, tables with a header, and rows on their way to utterances."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from model.audio.io import read_recording
from model.corpus.errors import CorpusError
from model.corpus.problems import NOTE, Problem
from model.corpus.sources import Sound, Source, Utterance

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
_USABLE_ID = re.compile(r"[\w.()+@-]+")


@dataclass(frozen=True)
class Row:
    """One line of a corpus: a clip's text and recording. `line` is where it stands, `metadata.csv:7`."""

    id: str
    text: str
    audio: Path
    language: str
    speaker: str
    line: str


@dataclass
class Rows:
    """Rows of a corpus in `folder`, turned into utterances; whatever is wrong with one becomes a problem."""

    folder: Path
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    problems: list[Problem] = field(default_factory=list)

    def add(self, row: Row) -> None:
        if _USABLE_ID.fullmatch(row.id):
            self.rows[row.id].append(row)
        else:
            self.refuse(row.id, row.line, "unusable_id", f"id {row.id!r} is no file name (letters, figures, . _ - are)")

    def refuse(self, name: str, place: str, reason: str, detail: str) -> None:
        self.problems.append(Problem(name[:80], place, reason, detail))

    def source(self, recordings: Iterable[Path] = ()) -> Source:
        """The utterances; `recordings` are all that there are, for a note on those that no row names."""
        utterances = []
        named = set()
        for name, found in self.rows.items():
            named |= {row.audio for row in found}
            row = self._only(name, found)
            if row is None:
                continue
            place = self.place(row.audio)
            if not row.text:
                self.refuse(name, row.line, "empty_transcript", "the row has no text")
            elif not row.audio.is_file():
                self.refuse(name, place, "missing_recording", f"{row.line} names a recording that is not there")
            else:
                record = partial(read_sound, row.audio)
                utterances.append(Utterance(name, row.text, row.language, row.speaker, place, record))
        for path in sorted(set(recordings) - named):
            self.problems.append(
                Problem(path.stem, self.place(path), "unused_recording", "no row of the transcripts names it", NOTE)
            )
        return Source(utterances, self.problems)

    def place(self, path: Path) -> str:
        """A path as findings name it: relative to the corpus where it lies inside."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    def _only(self, name: str, found: list[Row]) -> Row | None:
        """The row of an id; none where several rows say different things of one recording."""
        first = found[0]
        for row in found[1:]:
            self.refuse(name, row.line, "duplicate_id", f"{first.line} has the same id {name!r}")
        if len({row.text for row in found}) == 1:
            return first
        detail = f"{len(found)} rows give this id different texts, so none can be trusted"
        self.refuse(name, first.line, "duplicate_id", detail)
        return None


def read_sound(path: Path) -> Sound:
    recording = read_recording(path)
    return Sound(recording.samples, recording.sample_rate, notes=recording.notes)


def existing_folder(path: str, layout: str) -> Path:
    """The folder of a corpus.

    Raises:
        CorpusError: there is none.
    """
    if not path or not Path(path).is_dir():
        raise CorpusError(f"corpus.path ({path or 'empty'}): no such folder; name one with {layout}")
    return Path(path)


def audio_files(folder: Path) -> dict[str, Path]:
    """Stem -> recording of every audio file directly in `folder`; of several of one stem the first of `SUFFIXES`."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    found.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {path.stem: path for path in found}


def read_lines(path: Path, form: str) -> list[tuple[int, str]]:
    """(line number, line) of every line that is not blank.

    Raises:
        CorpusError: the file is missing, empty or not UTF-8; the message says what `form` its lines should have.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); it holds {form}") from error
    lines = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x}, number {error.start + 1} of the line); "
                "save the file as UTF-8, e.g. `iconv -f latin1 -t utf-8`"
            ) from error
        if line.strip():
            lines.append((number, line))
    if not lines:
        raise CorpusError(f"{path}: the file is empty; it holds {form}")
    return lines


@dataclass(frozen=True)
class Table:
    """A table with a header: (line number, column -> cell) of its rows, and the lines that do not fit the header."""

    rows: list[tuple[int, Mapping[str, str]]]
    misfits: list[tuple[int, str]]


def delimiter_of(header: str) -> str:
    """What separates the columns of a table, told by its header: `|`, tab, `;` or a comma."""
    return max("|\t;,", key=header.count)


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """A table of text (`|`, tab, comma or semicolon; only the latter two are quoted) or of JSON lines.

    Raises:
        CorpusError: as `read_lines`, or the header lacks one of `columns`.
    """
    lines = read_lines(path, f"a header with the columns {', '.join(columns)}, and one row for each recording")
    if path.suffix == ".jsonl":
        return _read_json_lines(path, lines)
    delimiter = delimiter_of(lines[0][1])
    quoting = csv.QUOTE_MINIMAL if delimiter in ",;" else csv.QUOTE_NONE
    cells = [(number, next(csv.reader([line], delimiter=delimiter, quoting=quoting), [])) for number, line in lines]
    header = [name.strip().lower() for name in cells[0][1]]
    if missing := [name for name in columns if name not in header]:
        raise CorpusError(f"{path}: its header {header} lacks the column {', '.join(missing)}; add it")
    rows = [
        (number, dict(zip(header, map(str.strip, row), strict=True)))
        for number, row in cells[1:]
        if len(row) == len(header)
    ]
    misfits = [
        (number, f"{len(row)} columns instead of {len(header)} ({delimiter.join(header)})")
        for number, row in cells[1:]
        if len(row) != len(header)
    ]
    return Table(rows, misfits)


def _read_json_lines(path: Path, lines: list[tuple[int, str]]) -> Table:
    rows, misfits = [], []
    for number, line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            misfits.append((number, f"not JSON: {error}"))
            continue
        if isinstance(record, dict):
            rows.append((number, {str(key).lower(): str(value).strip() for key, value in record.items()}))
        else:
            misfits.append((number, f"a JSON {type(record).__name__}, not an object"))
    return Table(rows, misfits)
