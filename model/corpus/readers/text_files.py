"""One text file per recording: `a.wav` beside `a.txt` or `a.lab`, or in `txt/` beside `wav/`, at any depth."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers.rows import Row, Rows, existing_folder
from model.corpus.recordings import AUDIO_FOLDERS, Recordings, without_suffix
from model.corpus.sources import Source
from model.errors import CorpusError

TEXT_SUFFIXES = (".txt", ".lab", ".normalized.txt", ".original.txt")
TEXT_FOLDERS = ("txt", "text", "texts", "transcripts", "transcript", "transcriptions", "lab", "labels")


def recognizes(folder: Path) -> bool:
    recordings = Recordings(folder)
    found = sum(text_of(path, folder) is not None for path in recordings.paths)
    return found > 0 and 2 * found >= len(recordings.paths)


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of the recordings with a text; the speaker is the first folder that differs between
    recordings, without `wavs/` and the like.

    Raises:
        CorpusError: no recording has a text.
    """
    folder = existing_folder(config.path, "recordings and a text file of the same name beside each")
    rows, recordings = Rows(folder), Recordings(folder)
    unused = []
    levels = zip(*(_specific_folders(path.relative_to(folder)) for path in recordings.paths), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    for path in recordings.paths:
        relative = path.relative_to(folder)
        place = text_of(path, folder)
        if place is None:
            unused.append(path)
            continue
        folders = _specific_folders(relative)
        name = without_suffix("/".join([*folders, relative.name]))
        text = rows.text_of(name, place)
        if text is None:
            continue
        speaker = next(iter(folders[common:] or folders[-1:]), config.speaker)
        line = rows.place(place)
        rows.add(Row(id=name, text=text, audio=path, language=config.language, speaker=speaker, line=line))
    if not rows.rows and not rows.problems:
        raise CorpusError(f"{folder}: no recording has a text file of its name ({', '.join(TEXT_SUFFIXES)})")
    return rows.source(unused)


def _specific_folders(relative: Path) -> list[str]:
    """Returns the folders of a recording without generic ones such as `wavs/`."""
    return [part for part in relative.parts[:-1] if part.lower() not in AUDIO_FOLDERS]


def text_of(audio: Path, folder: Path) -> Path | None:
    """Returns the text file of a recording: beside it, or at the same position below a folder of texts."""
    relative = audio.relative_to(folder).parts
    folders = [audio.parent, *(folder.joinpath(name, *relative[:-1]) for name in TEXT_FOLDERS)]
    for index, part in enumerate(relative[:-1]):
        if part.lower() in AUDIO_FOLDERS:
            folders += [folder.joinpath(*relative[:index], name, *relative[index + 1 : -1]) for name in TEXT_FOLDERS]
    stem = without_suffix(audio.name)
    suffixes = (*TEXT_SUFFIXES, *(suffix.upper() for suffix in TEXT_SUFFIXES))
    places = (place / f"{stem}{suffix}" for place in folders for suffix in suffixes)
    return next((place for place in places if place.is_file()), None)
