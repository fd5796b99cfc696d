"""What readers share: rows on their way to utterances, with safe unique ids, and what is wrong with them."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from model.audio.io import read_recording
from model.corpus.problems import NOTE, Problem
from model.corpus.recordings import SUFFIXES, clip_id
from model.corpus.sources import Sound, Source, Utterance
from model.errors import CorpusError


@dataclass(frozen=True)
class Row:
    """One line of a corpus: a clip's text and recording. `line` is where it stands, `metadata.csv:7`.

    `id` is whatever the corpus names the clip by; the id of the clip is made of it.
    """

    id: str
    text: str
    audio: Path
    language: str
    speaker: str
    line: str


@dataclass
class Rows:
    """Rows of a corpus in `folder`, turned into utterances; whatever is wrong with one becomes a problem."""

    folder: Path
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    problems: list[Problem] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add a row; names that differ only in their Unicode normal form are one."""
        self.rows[unicodedata.normalize("NFC", row.id)].append(row)

    def refuse(self, name: str, place: str, reason: str, detail: str) -> None:
        self.problems.append(Problem(name[:80], place, reason, detail))

    def source(self, recordings: Iterable[Path] = ()) -> Source:
        """The utterances; `recordings` are all that there are, for a note on those that no row names."""
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
            self.problems.append(
                Problem(path.stem, self.place(path), "unused_recording", "no row of the transcripts names it", NOTE)
            )
        return Source(utterances, self.problems, names=names)

    def place(self, path: Path) -> str:
        """A path as findings name it: relative to the corpus where it lies inside."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    def _utterance(self, name: str, row: Row) -> Utterance | None:
        place = self.place(row.audio)
        if not row.text:
            self.refuse(name, row.line, "empty_transcript", "the row has no text")
        elif not row.audio.is_file():
            link = f", a broken link to {row.audio.readlink()}" if row.audio.is_symlink() else ""
            self.refuse(name, place, "missing_recording", f"{row.line} names a recording that is not there{link}")
        else:
            return Utterance(name, row.text, row.language, row.speaker, place, partial(read_sound, row.audio))
        return None

    def _only(self, name: str, found: list[Row]) -> Row | None:
        """The row of an id; none where several rows say different things of one recording."""
        first = found[0]
        for row in found[1:]:
            self.refuse(name, row.line, "duplicate_id", f"{first.line} has the same id {name!r}")
        if len({row.text for row in found}) == 1:
            return first
        detail = f"{len(found)} rows give this id different texts, so none can be trusted"
        self.refuse(name, first.line, "duplicate_id", detail)
        return None


def _by_recording(rows: Iterable[Row]) -> Iterable[list[Row]]:
    """Rows of one name, those of each recording together: speakers may number their clips alike."""
    groups: dict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.audio].append(row)
    return groups.values()


def _unique(name: str, taken: set[str]) -> str:
    """The name, numbered where another clip has it already on a system that tells no case apart."""
    unique, number = name, 2
    while unique.casefold() in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(unique.casefold())
    return unique


def read_sound(path: Path) -> Sound:
    recording = read_recording(path)
    return Sound(recording.samples, recording.sample_rate, notes=recording.notes)


def existing_folder(path: str, layout: str) -> Path:
    """The folder of a corpus.

    Raises:
        CorpusError: there is none.
    """
    if not path or not Path(path).is_dir():
        raise CorpusError(f"corpus.path ({path or 'empty'}): no such folder; name one with {layout}")
    return Path(path)


def audio_files(folder: Path) -> dict[str, Path]:
    """Stem -> recording of every audio file directly in `folder`; of several of one stem the first of `SUFFIXES`."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    found.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {unicodedata.normalize("NFC", path.stem): path for path in found}
