"""Rows of a corpus and their conversion to utterances, shared by all readers."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from model.audio.io import read_recording
from model.corpus.problems import NOTE, Problem
from model.corpus.recordings import SUFFIXES, clip_id, is_file, leads_inside
from model.corpus.sources import Sound, Source, Utterance
from model.errors import CorpusError


@dataclass(frozen=True, kw_only=True)
class Row:
    """A clip as a corpus lists it.

    Attributes:
        id: Name of the clip in the corpus, from which its clip id is made.
        text, language, speaker: As in the manifest.
        audio: The recording.
        line: File and line of the row, `metadata.csv:7`.
    """

    id: str
    text: str
    audio: Path
    language: str
    speaker: str
    line: str


@dataclass
class Rows:
    """Collects the rows of a corpus in `folder` and converts them to utterances and problems."""

    folder: Path
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    problems: list[Problem] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Adds a row; names that differ only in their Unicode normal form are the same."""
        self.rows[unicodedata.normalize("NFC", row.id)].append(row)

    def refuse(self, name: str, place: str, reason: str, detail: str) -> None:
        """Adds a problem of a row without an utterance."""
        self.problems.append(Problem(id=name[:80], file=place, reason=reason, detail=detail))

    def text_of(self, name: str, path: Path) -> str | None:
        """Returns the text of a file that holds one clip's; None, after a problem was added, if it cannot be read."""
        try:
            return " ".join(path.read_bytes().decode("utf-8-sig").split())
        except UnicodeDecodeError as error:
            detail = f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}); save it as UTF-8"
        except OSError as error:
            detail = f"cannot be read ({error.strerror})"
        self.refuse(name, self.place(path), "unreadable_text", detail)
        return None

    def source(self, recordings: Iterable[Path] = ()) -> Source:
        """Returns the utterances and problems, with notes on those of `recordings` that no row names."""
        utterances = []
        named: set[Path] = set()
        taken: set[str] = set()
        names: dict[str, str] = {}
        for name, rows in self.rows.items():
            named |= {row.audio for row in rows}
            for found in _by_recording(rows):
                unique = _unique(clip_id(name), taken)
                if unique != name:
                    names[unique] = name
                row = self._only(unique, found)
                if row is not None and (utterance := self._utterance(unique, row)):
                    utterances.append(utterance)
        for path in sorted(set(recordings) - named):
            detail = "no row of the transcripts names it"
            self.problems.append(
                Problem(id=path.stem, file=self.place(path), reason="unused_recording", detail=detail, severity=NOTE)
            )
        return Source(utterances=utterances, problems=self.problems, names=names)

    def place(self, path: Path) -> str:
        """Returns a path for messages: relative to the corpus if it is inside."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    def _utterance(self, name: str, row: Row) -> Utterance | None:
        """Returns the utterance of a row, or adds a problem if it has no text or no recording."""
        place = self.place(row.audio)
        if not row.text:
            self.refuse(name, row.line, "empty_transcript", "the row has no text")
        elif not leads_inside(self.folder, row.audio):
            self.refuse(name, place, "missing_recording", f"{row.line} names a recording outside of the corpus")
        elif not is_file(row.audio):
            broken = os.path.islink(row.audio)  # False for a name that is too long
            link = f", a broken link to {row.audio.readlink()}" if broken else ""
            self.refuse(name, place, "missing_recording", f"{row.line} names a missing recording{link}")
        else:
            return Utterance(
                id=name,
                text=row.text,
                language=row.language,
                speaker=row.speaker,
                origin=place,
                record=partial(read_sound, row.audio),
            )
        return None

    def _only(self, name: str, found: list[Row]) -> Row | None:
        """Returns the row of an id; none if several rows have different texts for one recording."""
        first = found[0]
        for row in found[1:]:
            self.refuse(name, row.line, "duplicate_id", f"{first.line} has the same id {name!r}")
        if len({row.text for row in found}) == 1:
            return first
        detail = f"{len(found)} rows have this id with different texts; none of them is used"
        self.refuse(name, first.line, "duplicate_id", detail)
        return None


def text_files(folder: Path, suffix: str) -> list[Path]:
    """Returns the text files with a suffix in a folder, without the hidden ones that macOS adds (`._a.txt`)."""
    return sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))


def _by_recording(rows: Iterable[Row]) -> Iterable[list[Row]]:
    """Returns the rows of one name by recording, since different speakers may use the same names."""
    groups: dict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.audio].append(row)
    return groups.values()


def _unique(name: str, taken: set[str]) -> str:
    """Returns a name that is not `taken`, numbered if necessary, also on file systems that ignore case."""
    unique, number = name, 2
    while unique.casefold() in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(unique.casefold())
    return unique


def read_sound(path: Path) -> Sound:
    """Reads a recording."""
    recording = read_recording(path)
    return Sound(samples=recording.samples, sample_rate=recording.sample_rate, notes=recording.notes)


def existing_folder(path: str, layout: str) -> Path:
    """Returns the folder of a corpus.

    Raises:
        CorpusError: it does not exist.
    """
    if not path or not Path(path).is_dir():
        raise CorpusError(f"corpus.path ({path or 'empty'}): no such folder; give one with {layout}")
    return Path(path)


def audio_files(folder: Path) -> dict[str, Path]:
    """Returns the audio files in `folder` by stem; of several with one stem that with the first of `SUFFIXES`."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    found.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {unicodedata.normalize("NFC", path.stem): path for path in found}
