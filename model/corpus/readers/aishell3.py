"""AISHELL-3: `train/content.txt` (`<file><tab>广 guang3 州 zhou1 ...`) and `train/wav/SSB0005/`; `test/` alike."""

from __future__ import annotations

from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers.rows import Row, Rows, existing_folder
from model.corpus.sources import Source
from model.corpus.tables import read_lines
from model.errors import CorpusError

CONTENT, PARTS = "content.txt", ("train", "test")
SPEAKER_LETTERS = len("SSB0005")


def recognises(folder: Path) -> bool:
    return any((folder / part / CONTENT).is_file() and (folder / part / "wav").is_dir() for part in PARTS)


def read(config: CorpusConfig) -> Source:
    """Utterances of both parts; the pinyin between the characters is left out, and the texts have no punctuation.

    Raises:
        CorpusError: neither part is there.
    """
    folder = existing_folder(config.path, "train/content.txt and train/wav/")
    parts = [folder / part for part in PARTS if (folder / part / CONTENT).is_file()]
    if not parts:
        raise CorpusError(f"{folder}: neither train/{CONTENT} nor test/{CONTENT} is there")
    rows = Rows(folder)
    for part in parts:
        for number, line in read_lines(part / CONTENT, "one line `<file><tab><character> <pinyin> ...` a recording"):
            file, _, content = line.strip().partition("\t")
            line_number = f"{part.name}/{CONTENT}:{number}"
            speaker = file[:SPEAKER_LETTERS]
            text = "".join(token for token in content.split() if not token.isascii())
            rows.add(Row(Path(file).stem, text, part / "wav" / speaker / file, "zh", speaker, line_number))
    return rows.source()
