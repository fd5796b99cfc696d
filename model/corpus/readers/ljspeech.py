"""LJSpeech: `metadata.csv` without a header, `id|text|normalised text` or `id|text`, and `wavs/<id>.wav`."""

from __future__ import annotations

from pathlib import Path

from model.config.schema.data import CorpusConfig
from model.corpus.errors import CorpusError
from model.corpus.readers.rows import Row, Rows, audio_files, existing_folder, read_lines
from model.corpus.readers.table import has_header
from model.corpus.sources import Source

METADATA = "metadata.csv"
AUDIO_FOLDER = "wavs"
FORM = "one row `id|text|normalised text` for each recording"


def recognises(folder: Path) -> bool:
    return (folder / AUDIO_FOLDER).is_dir() and (folder / METADATA).is_file() and not has_header(folder / METADATA)


def read(config: CorpusConfig) -> Source:
    """Utterances of a folder in LJSpeech layout; every row that is none is a problem with its line number.

    Raises:
        CorpusError: the folder, its `metadata.csv` or `wavs/` is missing, empty or not UTF-8.
    """
    folder = existing_folder(config.path, "metadata.csv and wavs/")
    if not (folder / AUDIO_FOLDER).is_dir():
        raise CorpusError(f"{folder / AUDIO_FOLDER}: no such folder; recordings belong there as <id>.wav or <id>.flac")
    rows = Rows(folder)
    recordings = audio_files(folder / AUDIO_FOLDER)
    add_rows(rows, folder / METADATA, recordings, config)
    return rows.source(recordings.values())


def add_rows(rows: Rows, path: Path, recordings: dict[str, Path], config: CorpusConfig) -> None:
    """The lines of one file of transcripts."""
    for number, line in read_lines(path, FORM):
        columns = [column.strip() for column in line.split("|")]
        name, place = columns[0], f"{path.name}:{number}"
        if len(columns) not in (2, 3):
            detail = f"{len(columns)} columns instead of 3 (id|text|normalised text): {line[:80]!r}"
            rows.refuse(name, place, "wrong_columns", detail)
            continue
        audio = recordings.get(name, rows.folder / AUDIO_FOLDER / f"{name}.wav")
        rows.add(Row(name, columns[-1] or columns[1], audio, config.language, config.speaker, place))
