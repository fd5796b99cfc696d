"""LibriTTS and LibriSpeech: `<subset>/<speaker>/<chapter>/`, with a text file per clip or a transcript per chapter."""

from __future__ import annotations

from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers.rows import Row, Rows, audio_files, existing_folder, text_files
from model.corpus.sources import Source
from model.corpus.tables import read_lines
from model.errors import CorpusError

NORMALIZED, TRANSCRIPT = ".normalized.txt", ".trans.txt"
DEPTHS = ("*/*", "*/*/*", "*/*/*/*")
"""Chapters below `corpus.path`, which may be one subset, the corpus, or the folder of its archive."""


def recognizes(folder: Path) -> bool:
    return any(True for depth in DEPTHS for end in (NORMALIZED, TRANSCRIPT) for _ in folder.glob(f"{depth}/*{end}"))


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of every chapter; the speaker is the folder above it.

    Raises:
        CorpusError: no chapter has texts.
    """
    folder = existing_folder(config.path, "<speaker>/<chapter>/ folders")
    rows = Rows(folder)
    chapters = sorted(
        {path.parent for depth in DEPTHS for end in (NORMALIZED, TRANSCRIPT) for path in folder.glob(f"{depth}/*{end}")}
    )
    if not chapters:
        raise CorpusError(
            f"{folder}: no chapter (<speaker>/<chapter>/) with *{NORMALIZED} (LibriTTS) or *{TRANSCRIPT} (LibriSpeech)"
        )
    unused: list[Path] = []
    for chapter in chapters:
        recordings = audio_files(chapter)
        texts = _texts(chapter, rows)
        for name, (text, line) in texts.items():
            audio = recordings.get(name, chapter / f"{name}.wav")
            speaker, place = chapter.parent.name, f"{rows.place(chapter)}/{line}"
            rows.add(Row(id=name, text=text, audio=audio, language=config.language, speaker=speaker, line=place))
        unused += [path for name, path in recordings.items() if name not in texts]
    return rows.source(unused)


def _texts(chapter: Path, rows: Rows) -> dict[str, tuple[str, str]]:
    """Returns (text, its file and line) by clip. LibriTTS also has tables with the names of LibriSpeech's
    transcripts."""
    texts = {}
    single = text_files(chapter, NORMALIZED)
    for path in single:
        name = path.name.removesuffix(NORMALIZED)
        if (text := rows.text_of(name, path)) is not None:
            texts[name] = (text, path.name)
    for path in () if single else text_files(chapter, TRANSCRIPT):
        for number, line in read_lines(path, "one line `<id> <text>` per recording"):
            name, _, text = line.strip().partition(" ")
            texts[name] = (
                text.strip().lower(),
                f"{path.name}:{number}",
            )  # published in capitals, which would be read as initials
    return texts
