"""The manifest: one JSON object per line, one line per clip. Every stage reads and writes this and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from model.errors import MyXTTSError

MANIFEST = "manifest.jsonl"


class ManifestError(MyXTTSError):
    """A manifest is missing or malformed; the message names the file, the line and the cure."""


@dataclass(frozen=True)
class Clip:
    """One recording and what is known of it.

    Attributes:
        id: Unique within the corpus.
        audio: Path of the audio file relative to the manifest's folder (mono FLAC at `sample_rate`).
        text: What is said, as published.
        language: espeak-ng voice name (`en`, `fa`, ...).
        speaker: Speaker name.
        seconds: Duration of the audio file.
        sample_rate: Rate of the stored audio in Hz.
        source_sample_rate: Rate of the recording that it was made from, in Hz.
        split: `train`, `validation`, `test`, or empty before the split stage.
    """

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
    """Write `folder/manifest.jsonl` in one move, so that a reader never sees half of it."""
    path = folder / MANIFEST
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for clip in clips:
            file.write(json.dumps(asdict(clip), ensure_ascii=False) + "\n")
    os.replace(partial, path)
    return path


def read_manifest(folder: Path) -> list[Clip]:
    """Clips of `folder/manifest.jsonl` in file order.

    Raises:
        ManifestError: the file is missing, or a line is not a clip.
    """
    path = folder / MANIFEST
    try:
        with path.open(encoding="utf-8") as file:  # by line feeds alone: a text may hold other ends of lines (U+2028)
            lines = file.readlines()
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: no manifest here; run `dvc repro` to make the data stages") from error
    names = {field.name for field in fields(Clip)}
    clips = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            clips.append(Clip(**record))
        except (json.JSONDecodeError, TypeError) as error:
            raise ManifestError(f"{path}:{number}: not a clip with the keys {sorted(names)}: {error}") from error
    return clips
