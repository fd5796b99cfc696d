"""Corpora of the first MyXTTS: `metadata_train.csv` and `metadata_eval.csv` beside `wavs/`.

Rows have the columns of LJSpeech (`id|text|normalized text`), with clips of LJSpeech and VCTK, or Coqui's header
`audio_file|text|speaker_name`. The old splits are ignored: they could share sentences.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers import ljspeech, table
from model.corpus.readers.rows import Rows, existing_folder
from model.corpus.recordings import Recordings
from model.corpus.sources import Source
from model.errors import CorpusError

TABLES = ("metadata_train.csv", "metadata_eval.csv")
_SPEAKER = re.compile(r"(LJ)\d{3}-|([ps]\d{1,3})_")
"""Speaker in the ids of LJSpeech and VCTK."""


def recognizes(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ljspeech.AUDIO_FOLDERS) and any(
        (folder / name).is_file() for name in TABLES
    )


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of both tables.

    Raises:
        CorpusError: the folder has neither table, or no `wavs/`.
    """
    folder = existing_folder(config.path, f"{' and '.join(TABLES)} and wavs/")
    if not recognizes(folder):
        raise CorpusError(f"{folder}: needs wavs/ and one of {', '.join(TABLES)}")
    rows, recordings = Rows(folder), Recordings(folder)
    for path in (folder / name for name in TABLES if (folder / name).is_file()):
        table.add_rows(rows, path, recordings, config)
    for found in rows.rows.values():
        found[:] = [replace(row, speaker=_speaker(row.id, row.speaker)) for row in found]
    return rows.source(recordings.paths)


def _speaker(name: str, default: str) -> str:
    match = _SPEAKER.match(name)
    return (match[1] or match[2]) if match else default
