"""A table of recordings: csv, tsv or jsonl with the columns audio, text and, if they differ, speaker and language."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from model.config.schema.data import CorpusConfig
from model.corpus.errors import CorpusError
from model.corpus.readers.rows import Row, Rows, delimiter_of, read_table
from model.corpus.sources import Source
from model.text.languages import code_of

NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "manifest.jsonl", "manifest.csv", "manifest.tsv")
COLUMNS = {
    "audio": ("audio", "path", "file", "audio_file", "audio_filepath", "wav", "filename", "file_name"),
    "text": ("text", "sentence", "transcript", "transcription", "normalized_text"),
    "speaker": ("speaker", "speaker_id", "speaker_name", "client_id"),
    "language": ("language", "lang", "locale"),
    "id": ("id", "clip_id", "utterance_id"),
}
"""What a clip needs -> names that its column has in the wild, the first one meant where several are there."""


def recognises(folder: Path) -> bool:
    return any((folder / name).is_file() and has_header(folder / name) for name in NAMES)


def has_header(path: Path) -> bool:
    """Whether the first line of a table names a column of recordings and one of texts."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    if path.suffix == ".jsonl":
        return first.lstrip().startswith("{")
    columns = {cell.strip().strip('"').lower() for cell in first.split(delimiter_of(first))}
    return all(columns.intersection(COLUMNS[wanted]) for wanted in ("audio", "text"))


def read(config: CorpusConfig) -> Source:
    """Utterances of a table; paths of recordings are relative to its folder. `corpus.path` is the folder or the table.

    Rows without a speaker or language of their own have `corpus.speaker` and `corpus.language`.

    Raises:
        CorpusError: there is no such table, or its header names no recordings or texts.
    """
    path = Path(config.path)
    if path.is_dir():
        path = next((path / name for name in NAMES if (path / name).is_file()), path / NAMES[0])
    if not path.is_file():
        raise CorpusError(f"{path}: no such table; write one with the columns audio, text, speaker, language")
    rows = Rows(path.parent)
    add_rows(rows, path, path.parent, config)
    return rows.source()


def add_rows(rows: Rows, path: Path, audio_folder: Path, config: CorpusConfig) -> None:
    """The rows of one table.

    Raises:
        CorpusError: its rows name no recordings or texts.
    """
    table = read_table(path, ())
    for number, detail in table.misfits:
        rows.refuse("", f"{path.name}:{number}", "wrong_columns", detail)
    for number, cells in table.rows:
        audio, text = _cell(cells, "audio"), _cell(cells, "text")
        place = f"{path.name}:{number}"
        if audio is None or text is None:
            lacking = "audio" if audio is None else "text"
            raise CorpusError(
                f"{place} in {path.parent}: no column for {lacking} (one of {', '.join(COLUMNS[lacking])})"
            )
        name = _cell(cells, "id") or "-".join(PurePosixPath(audio).with_suffix("").parts)
        language = code_of(_cell(cells, "language") or config.language)
        speaker = _cell(cells, "speaker") or config.speaker
        rows.add(Row(name, text, audio_folder / audio, language, speaker, place))


def _cell(cells: Mapping[str, str], wanted: str) -> str | None:
    return next((cells[name] for name in COLUMNS[wanted] if name in cells), None)
