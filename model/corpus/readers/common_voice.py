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
"""Leading hex digits of a client id (128): enough to distinguish ten million speakers."""


def recognizes(folder: Path) -> bool:
    return (folder / TABLE).is_file() and (folder / AUDIO_FOLDER).is_dir()


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of the validated clips.

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
        rows.add(
            Row(
                id=audio.stem,
                text=cells["sentence"],
                audio=audio,
                language=code_of(cells["locale"] or config.language),
                speaker=cells["client_id"][:SPEAKER_DIGITS],
                line=f"{TABLE}:{number}",
            )
        )
    return rows.source()
