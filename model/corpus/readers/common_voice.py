"""Mozilla Common Voice, one language: `validated.tsv` and `clips/*.mp3`."""

from __future__ import annotations

from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers.rows import Row, Rows, existing_folder
from model.corpus.sources import Source
from model.corpus.tables import read_table
from model.text.languages import code_of

TABLE, AUDIO_FOLDER = "validated.tsv", "clips"
COLUMNS = ("client_id", "path", "sentence", "locale")
SPEAKER_DIGITS = 12
"""Of the 128 hex digits of a client: enough to tell ten million people apart."""


def recognises(folder: Path) -> bool:
    return (folder / TABLE).is_file() and (folder / AUDIO_FOLDER).is_dir()


def read(config: CorpusConfig) -> Source:
    """Utterances of the clips that listeners have confirmed. What is not validated is not read.

    Raises:
        CorpusError: the table is missing, or lacks a column.
    """
    folder = existing_folder(config.path, f"{TABLE} and {AUDIO_FOLDER}/")
    table = read_table(folder / TABLE, COLUMNS)
    rows = Rows(folder)
    for number, detail in table.misfits:
        rows.refuse("", f"{TABLE}:{number}", "wrong_columns", detail)
    for number, cells in table.rows:
        audio = folder / AUDIO_FOLDER / cells["path"]
        language, speaker = code_of(cells["locale"] or config.language), cells["client_id"][:SPEAKER_DIGITS]
        rows.add(Row(audio.stem, cells["sentence"], audio, language, speaker, f"{TABLE}:{number}"))
    return rows.source()
