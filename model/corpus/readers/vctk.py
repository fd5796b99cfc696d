"""VCTK: `txt/p225/p225_001.txt` and `wav48_silence_trimmed/p225/p225_001_mic1.flac` (0.80: `wav48/...wav`)."""

from __future__ import annotations

from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers.rows import Row, Rows, audio_files, existing_folder, text_files
from model.corpus.sources import Source
from model.errors import CorpusError

AUDIO_FOLDERS = ("wav48_silence_trimmed", "wav48")
MICROPHONES = ("_mic1", "", "_mic2")
"""Endings of the recordings of one sentence, in order of preference (two speakers have one microphone)."""


def recognizes(folder: Path) -> bool:
    return (folder / "txt").is_dir() and any((folder / name).is_dir() for name in AUDIO_FOLDERS)


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of VCTK. Recordings without a text, such as all of p315, become notes.

    Raises:
        CorpusError: the folder lacks its recordings or its texts.
    """
    folder = existing_folder(config.path, "txt/ and wav48_silence_trimmed/")
    audio = next((folder / name for name in AUDIO_FOLDERS if (folder / name).is_dir()), None)
    if audio is None or not (folder / "txt").is_dir():
        raise CorpusError(f"{folder}: not VCTK, which has txt/ beside one of {', '.join(AUDIO_FOLDERS)}")
    rows = Rows(folder)
    unused: list[Path] = []
    for speaker in sorted(path for path in audio.iterdir() if path.is_dir()):
        recordings = audio_files(speaker)
        texts = {path.stem: path for path in text_files(folder / "txt" / speaker.name, ".txt")}
        for name, path in texts.items():
            found = next((recordings[name + end] for end in MICROPHONES if name + end in recordings), None)
            text = rows.text_of(name, path)
            if text is None:
                continue
            rows.add(
                Row(
                    id=name,
                    text=text,
                    audio=found or speaker / f"{name}{MICROPHONES[0]}.flac",
                    language=config.language,
                    speaker=speaker.name,
                    line=rows.place(path),
                )
            )
        unused += [path for stem, path in recordings.items() if stem.partition("_mic")[0] not in texts]
    return rows.source(unused)
