"""Lookup of the audio files below a folder by the names in a table, and clip ids from such names."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from model.errors import CorpusError

SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".oga", ".aif", ".aiff", ".aifc", ".caf", ".w64",
    ".au", ".mp4", ".mka", ".wma", ".amr",
)  # fmt: skip
"""Suffixes of recordings, in any case; of several files with one name the first suffix here is read."""
AUDIO_FOLDERS = frozenset(
    ("wavs", "wav", "wavs22k", "audio", "audios", "clips", "recordings", "sounds", "speech", "flac", "mp3", "ogg",
     "data", "train", "test", "dev")
)  # fmt: skip
"""Names of folders that do not describe a recording, so that a path in a table may omit them."""
MAX_ID_BYTES = 160
_ID_MARKS = "_.()+@-"


class Recordings:
    """Index of the audio files below a folder, without hidden files and those of macOS archives.

    Broken symbolic links are included, so that a row that names one is reported as missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(_audio_files(folder))
        self._tails: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for path in self.paths:
            parts = _key(path.relative_to(folder).as_posix())
            for length in range(1, len(parts) + 1):
                self._tails[parts[-length:]].append(path)

    def find(self, name: str, beside: Path | None = None) -> Path | None:
        """Returns the recording of a name; None if there is none, or if the name is ambiguous.

        A name may be an id, a file name or a path, relative or of another machine, with slashes or backslashes, with or
        without suffix, in any case and any Unicode normal form.

        Args:
            name: Cell of a table.
            beside: Folder of the table, if it is not that of the index.
        """
        found = self.candidates(name, beside)
        return found[0] if len(found) == 1 else None

    def candidates(self, name: str, beside: Path | None = None) -> list[Path]:
        """Returns the recordings that match a name equally well; see `find`."""
        cleaned = clean_path(name)
        if not cleaned or "\0" in cleaned:
            return []
        for folder in (beside, self.folder):
            exact = (folder or self.folder) / cleaned
            if exact.suffix and leads_inside(self.folder, exact) and is_file(exact):
                return [exact]
        parts = _key(cleaned)
        for length in range(len(parts), 0, -1):
            found = self._tails.get(parts[-length:], [])
            if length < len(parts):  # the start of the path is of another machine: the rest must be the whole path here
                found = [path for path in found if self._has_generic_parents(path, length)]
            if found:
                return _best(found, cleaned)
        return []

    def expected(self, name: str, beside: Path) -> Path:
        """Returns the path where a missing recording would be expected."""
        cleaned = clean_path(name) or "?"
        if "/" in cleaned or without_suffix(cleaned) != cleaned or not self.paths:
            return beside / cleaned
        parent = Counter(path.parent for path in self.paths).most_common(1)[0][0]
        suffix = Counter(path.suffix for path in self.paths).most_common(1)[0][0]
        return parent / f"{cleaned}{suffix}"

    def _has_generic_parents(self, path: Path, length: int) -> bool:
        """Returns whether only folders of `AUDIO_FOLDERS` are above the last `length` parts of a path."""
        above = path.relative_to(self.folder).parts[:-length]
        return all(part.lower() in AUDIO_FOLDERS for part in above)


def _best(found: list[Path], name: str) -> list[Path]:
    """Returns, of files with one name, that in the highest folder with the best suffix; several if it is ambiguous."""
    shortest = min(len(path.parts) for path in found)
    found = [path for path in found if len(path.parts) == shortest]
    if len({path.parent for path in found}) > 1:
        return found
    exact = [path for path in found if unicodedata.normalize("NFC", path.name) == Path(name).name]
    same = [path for path in found if path.suffix.lower() == Path(name).suffix.lower()]
    return [min(exact or same or found, key=lambda path: SUFFIXES.index(path.suffix.lower()))]


def leads_inside(folder: Path, path: Path) -> bool:
    """Returns whether a path, with its `..`, stays below a folder; links that lie in the folder may lead elsewhere."""
    return Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder))


def check_links(folder: Path) -> None:
    """Checks that no symbolic link below a folder leads out of it.

    Otherwise whoever made the folder, such as an archive, could have any file of the machine read as part of a corpus.

    Broken links are not checked: a row that names one is reported as missing.

    Raises:
        CorpusError: a link leads out of the folder.
    """
    root = folder.resolve()
    links = [
        path
        for at, folders, files in os.walk(root)
        for path in (Path(at) / name for name in sorted((*folders, *files)))
        if path.is_symlink() and path.exists() and not path.resolve().is_relative_to(root)
    ]
    if links:
        raise CorpusError(
            f"{folder}: {len(links)} symbolic {'link leads' if len(links) == 1 else 'links lead'} out of the folder, "
            f"the first {links[0].relative_to(root)} to {links[0].resolve()}; copy the files into the folder, or set "
            "corpus.follow_links=true if whoever made the folder may choose which files of this machine are read"
        )


def clean_path(name: str) -> str:
    """Returns a path with slashes, without quotes, `file://` and drive, in Unicode normal form C."""
    name = unicodedata.normalize("NFC", name.strip().strip("\"'"))
    if name.lower().startswith("file://"):
        name = unquote(name[len("file://") :])
    name = name.replace("\\", "/")
    return name[2:] if len(name) > 2 and name[1] == ":" and name[0].isalpha() and name[2] == "/" else name


def without_suffix(name: str) -> str:
    """Returns a name without the suffix of a recording; `v1.2` has none."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name


def clip_id(name: str) -> str:
    """Returns a clip id for any name, usable as a file name: letters of all scripts, digits and `_.()+@-`.

    The parts of a path are joined by `-`; other characters become `_`; a long name is shortened and ends in a hash.
    """
    parts = [part for part in clean_path(name).split("/") if part not in ("", ".", "..")]
    text = "".join(c if _is_usable(c) else "_" for c in "-".join(parts)).strip("_").lstrip(".")
    if len(text.encode()) > MAX_ID_BYTES:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = f"{text.encode()[: MAX_ID_BYTES - 9].decode('utf-8', 'ignore')}-{digest}"
    return text or f"clip-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def corpus_name(folder: str) -> str:
    """Returns the name of a corpus for the name of its folder: letters of all scripts, digits, `_` and `-`.

    The name is in Unicode normal form C, so that a folder has one name on all file systems.
    """
    letters = unicodedata.normalize("NFC", folder)
    text = "".join(c if c in "_-" or c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in letters)
    return "-".join(text.split()).strip("-") or "corpus"


def _is_usable(character: str) -> bool:
    return character.isalnum() or character in _ID_MARKS or unicodedata.category(character)[0] == "M"


def _key(path: str) -> tuple[str, ...]:
    """Returns the lookup key of a path: its parts in lower case and normal form C, the last without suffix."""
    parts = [part for part in unicodedata.normalize("NFC", path).casefold().split("/") if part not in ("", ".", "..")]
    return (*parts[:-1], without_suffix(parts[-1])) if parts else ()


def is_file(path: Path) -> bool:
    """Returns whether a path is a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a file name may be, or with a character that none has
        return False


def walk_folders(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yields the path, folders and files of a folder and of all below it, also through symbolic links, each once.

    As with `os.walk`, changes to the list of folders determine which of them are visited.
    """
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        yield Path(root), folders, files


def _audio_files(folder: Path) -> Iterator[Path]:
    """Yields the audio files below a folder."""
    for root, folders, files in walk_folders(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield root / name
