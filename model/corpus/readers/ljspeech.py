"""LJSpeech and Piper: `metadata.csv` without a header beside `wavs/` or `wav/`, `id|text|normalized text`, `id|text`,
`id|speaker|text` or `id|text|speaker`."""

from __future__ import annotations

from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.columns import named_columns
from model.corpus.readers import table
from model.corpus.readers.rows import Rows, existing_folder
from model.corpus.recordings import Recordings
from model.corpus.sources import Source
from model.corpus.tables import DELIMITERS, split_rows
from model.errors import CorpusError

METADATA = "metadata.csv"
AUDIO_FOLDERS = ("wavs", "wav")


def recognizes(folder: Path) -> bool:
    path = folder / METADATA
    return any((folder / name).is_dir() for name in AUDIO_FOLDERS) and path.is_file() and not has_header(path)


def has_header(path: Path) -> bool:
    """Returns whether the first line of a table names a column of recordings and one of texts."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    return any(named_columns(split_rows(first, sign)[0].cells) for sign in DELIMITERS if sign in first)


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of a folder in LJSpeech layout.

    Raises:
        CorpusError: the folder, its `metadata.csv` or `wavs/` is missing, empty or not UTF-8.
    """
    folder = existing_folder(config.path, "metadata.csv and wavs/")
    if not any((folder / name).is_dir() for name in AUDIO_FOLDERS):
        raise CorpusError(
            f"{folder / AUDIO_FOLDERS[0]}: no such folder; put recordings there as <id>.wav or in other formats"
        )
    rows, recordings = Rows(folder), Recordings(folder)
    table.add_rows(rows, folder / METADATA, recordings, config)
    return rows.source(recordings.paths)
