"""A data folder of Kaldi, ESPnet and others: `wav.scp` (`<id> <path>`), `text` (`<id> <words>`), `utt2spk`."""

from __future__ import annotations

from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers.rows import Row, Rows, existing_folder
from model.corpus.recordings import Recordings
from model.corpus.sources import Source
from model.corpus.tables import read_lines
from model.errors import CorpusError

AUDIO, TEXT, SPEAKERS, SEGMENTS = "wav.scp", "text", "utt2spk", "segments"


def recognizes(folder: Path) -> bool:
    return (folder / AUDIO).is_file() and (folder / TEXT).is_file()


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of a data folder; the speaker is `corpus.speaker` without `utt2spk`.

    Raises:
        CorpusError: a file is missing, or the utterances are segments of longer recordings.
    """
    folder = existing_folder(config.path, f"{AUDIO} and {TEXT}")
    if (folder / SEGMENTS).is_file():
        raise CorpusError(
            f"{folder / SEGMENTS}: segments of recordings are not supported; cut them first (extract-segments)"
        )
    rows, recordings = Rows(folder), Recordings(folder)
    texts = {name: (number, text) for number, name, text in _lines(folder / TEXT)}
    speakers = {name: who for _, name, who in _lines(folder / SPEAKERS)} if (folder / SPEAKERS).is_file() else {}
    for number, name, path in _lines(folder / AUDIO):
        if path.endswith("|"):
            rows.refuse(name, f"{AUDIO}:{number}", "unreadable", "is the output of a command; save it as a file first")
        elif name in texts:
            line, text = texts[name]
            audio = recordings.find(path) or Path(path)
            audio = audio if audio.is_absolute() or audio.is_relative_to(folder) else folder / audio
            speaker = speakers.get(name, config.speaker)
            rows.add(
                Row(id=name, text=text, audio=audio, language=config.language, speaker=speaker, line=f"{TEXT}:{line}")
            )
    named = {name for name, *_ in rows.rows.items()} | {problem.id for problem in rows.problems}
    for name, (line, _) in texts.items():
        if name not in named:
            rows.refuse(name, f"{TEXT}:{line}", "missing_recording", f"{AUDIO} has no line for {name!r}")
    return rows.source(recordings.paths)


def _lines(path: Path) -> list[tuple[int, str, str]]:
    """Returns (line number, first word, rest) of every line."""
    lines = read_lines(path, "one line `<id> <value>` per recording")
    parts = [(number, line.strip().split(maxsplit=1)) for number, line in lines]
    return [(number, words[0], words[1] if len(words) > 1 else "") for number, words in parts]
