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


def recognizes(folder: Path) -> bool:
    return any((folder / part / CONTENT).is_file() and (folder / part / "wav").is_dir() for part in PARTS)


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of both parts, without the pinyin between the characters. The texts have no punctuation.

    Raises:
        CorpusError: both parts are missing.
    """
    folder = existing_folder(config.path, "train/content.txt and train/wav/")
    parts = [folder / part for part in PARTS if (folder / part / CONTENT).is_file()]
    if not parts:
        raise CorpusError(
            f"{folder}: train/{CONTENT} and test/{CONTENT} are missing; give the folder with train/ and test/"
        )
    rows = Rows(folder)
    for part in parts:
        for number, line in read_lines(part / CONTENT, "one line `<file><tab><character> <pinyin> ...` per recording"):
            file, _, content = line.strip().partition("\t")
            speaker = file[:SPEAKER_LETTERS]
            rows.add(
                Row(
                    id=Path(file).stem,
                    text="".join(token for token in content.split() if not token.isascii()),
                    audio=part / "wav" / speaker / file,
                    language="zh",
                    speaker=speaker,
                    line=f"{part.name}/{CONTENT}:{number}",
                )
            )
    return rows.source()
