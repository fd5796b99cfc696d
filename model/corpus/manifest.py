"""The manifest of a corpus, one JSON object per clip and line, and the folders that hold one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from model.errors import CorpusError, MyXTTSError
from model.files import (
    atomic_write,
    read_record,
    read_records,
    remove_leftovers,
    stays_inside,
    write_json,
    write_json_lines,
)

MANIFEST = "manifest.jsonl"
LICENSE = "license.json"


class ManifestError(MyXTTSError):
    """A manifest is missing or malformed; the message names the file, the line and the fix."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording of one utterance and its metadata.

    Attributes:
        id: Unique within the corpus, and usable as the name of a file.
        audio: Path of the audio file relative to the manifest's folder (mono FLAC at `sample_rate`).
        text: Transcript as published.
        language: Name of an espeak-ng voice (`en`, `fa`, ...).
        speaker: Name of the speaker.
        seconds: Duration of the audio file.
        sample_rate: Of the audio file, in Hz.
        source_sample_rate: Of the original recording, in Hz.
        split: `train`, `validation`, `test`, or empty before the split stage.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: str
    audio: str
    text: str
    language: str
    speaker: str
    seconds: float
    sample_rate: int
    source_sample_rate: int
    split: str = ""


def write_manifest(folder: Path, clips: Iterable[Clip]) -> Path:
    """Writes `folder/manifest.jsonl` atomically and returns its path."""
    return write_json_lines(folder / MANIFEST, map(asdict, clips))


def read_manifest(folder: Path, beside: bool = False) -> list[Clip]:
    """Returns the clips of `folder/manifest.jsonl` in file order.

    Args:
        folder: Folder of the corpus.
        beside: Whether recordings may lie in a folder beside it, as those of the stage `validate` do.

    Raises:
        ManifestError: the file is missing, or a line is not a clip, or names a file that lies elsewhere.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; run `dvc repro` to make the data stages")
    names = ", ".join(field.name for field in fields(Clip))
    fix = "run `dvc repro` to make it again"
    clips = read_records(path, Clip, ManifestError, f"a line has the keys {names}; {fix}")
    for clip in clips:
        audio = clip.audio.removeprefix("../") if beside else clip.audio
        for key, name, inside in (("audio", clip.audio, audio), ("id", clip.id, clip.id)):
            if not stays_inside(inside) or (key == "id" and "/" in inside):
                raise ManifestError(f"{path}: `{key}` {name[:200]!r} leads out of the corpus; {fix}")
    return clips


@contextmanager
def stage_folder(destination: Path) -> Iterator[Path]:
    """Yields a new folder that replaces `destination` when the block ends without an exception.

    Raises:
        CorpusError: `destination` has files that are not those of a stage.
    """
    destination = Path(destination).absolute()
    replaceable = (destination / MANIFEST).is_file() or (destination.is_dir() and not any(destination.iterdir()))
    if destination.exists() and not replaceable:
        raise CorpusError(f"{destination}: holds other files and would be replaced; name a new or empty folder")
    remove_leftovers(destination)
    with atomic_write(destination) as partial:
        partial.mkdir()
        yield partial


def write_license(folder: Path, name: str) -> None:
    """Writes the license of a corpus beside its manifest, if it is given."""
    if name:
        write_json(folder / LICENSE, {"license": name})


def read_license(folder: Path) -> str:
    """Returns the license of a corpus; '' where none is given."""
    path = folder / LICENSE
    fix = "run `dvc repro` to make it again"
    return read_record(path, dict[str, str], ManifestError, fix).get("license", "") if path.is_file() else ""
