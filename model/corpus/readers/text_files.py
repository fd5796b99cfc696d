"""A text file for each recording: `a.wav` beside `a.txt` or `a.lab`, or in `txt/` beside `wav/`, at any depth."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers.rows import Row, Rows, existing_folder
from model.corpus.recordings import AUDIO_FOLDERS, Recordings, without_suffix
from model.corpus.sources import Source
from model.corpus.tables import read_text
from model.errors import CorpusError

TEXT_SUFFIXES = (".txt", ".lab", ".normalized.txt", ".original.txt")
TEXT_FOLDERS = ("txt", "text", "texts", "transcripts", "transcript", "transcriptions", "lab", "labels")


def recognises(folder: Path) -> bool:
    recordings = Recordings(folder)
    found = sum(text_of(path, folder) is not None for path in recordings.paths)
    return found > 0 and 2 * found >= len(recordings.paths)


def read(config: CorpusConfig) -> Source:
    """Utterances of the recordings that have a text; the speaker is the first folder that tells recordings apart and is
    no `wavs/` or the like.

    Raises:
        CorpusError: no recording has a text, or a text is not UTF-8.
    """
    folder = existing_folder(config.path, "recordings and a text file of the same name for each")
    rows, recordings = Rows(folder), Recordings(folder)
    unused = []
    levels = zip(*(_telling(path.relative_to(folder)) for path in recordings.paths), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    for path in recordings.paths:
        relative = path.relative_to(folder)
        place = text_of(path, folder)
        if place is None:
            unused.append(path)
            continue
        try:
            text = " ".join(read_text(place, "the text of one recording").split())
        except CorpusError:
            if place.stat().st_size:
                raise
            text = ""
        named = _telling(relative)
        name = without_suffix("/".join([*named, relative.name]))
        speaker = next(iter(named[common:] or named[-1:]), config.speaker)
        rows.add(Row(name, text, path, config.language, speaker, rows.place(place)))
    if not rows.rows:
        raise CorpusError(f"{folder}: no recording has a text file of its name ({', '.join(TEXT_SUFFIXES)})")
    return rows.source(unused)


def _telling(relative: Path) -> list[str]:
    """Folders of a recording whose names say something."""
    return [part for part in relative.parts[:-1] if part.lower() not in AUDIO_FOLDERS]


def text_of(audio: Path, folder: Path) -> Path | None:
    """The text file of a recording: beside it, or at the same place below a folder of texts."""
    relative = audio.relative_to(folder).parts
    folders = [audio.parent, *(folder.joinpath(name, *relative[:-1]) for name in TEXT_FOLDERS)]
    for index, part in enumerate(relative[:-1]):
        if part.lower() in AUDIO_FOLDERS:
            folders += [folder.joinpath(*relative[:index], name, *relative[index + 1 : -1]) for name in TEXT_FOLDERS]
    stem = without_suffix(audio.name)
    suffixes = (*TEXT_SUFFIXES, *(suffix.upper() for suffix in TEXT_SUFFIXES))
    places = (place / f"{stem}{suffix}" for place in folders for suffix in suffixes)
    return next((place for place in places if place.is_file()), None)
