"""Layout of a voice folder, and how a vocoder is added to it. Nothing here loads weights or imports torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from model.errors import MyXTTSError
from model.files import atomic_write, read_record, sha256_of_file, write_text

WEIGHTS, DESCRIPTION, VOCODER = "model.safetensors", "voice.json", "vocoder"
TRAINING_SENTENCES = "training_sentences.txt"
"""File of a voice folder: hashes of the sentences that the voice, or a voice it started from, was trained on."""
VOCODER_DESCRIPTION = "vocoder.json"
INFERENCE_FILES = ("generator.safetensors", VOCODER_DESCRIPTION)
"""Files of a vocoder folder that synthesis needs; discriminators are needed by training only."""


class VoiceFolderError(MyXTTSError):
    """A description of a voice or a vocoder cannot be read; the message names the file and the fix."""


def with_vocoder(voice: Path, destination: Path, settings: BaseModel, vocoder: Path | None) -> Path:
    """Copies a voice and sets the vocoder of the copy, atomically; returns the copy.

    Args:
        voice: Folder of an exported voice.
        destination: The copy, which replaces any existing folder.
        settings: Settings of the vocoder, stored in the voice.
        vocoder: Folder of a trained vocoder; None where the settings name one without weights.
    """
    with atomic_write(destination) as partial:
        shutil.copytree(voice, partial, ignore=shutil.ignore_patterns(VOCODER))
        description = read_record(voice / DESCRIPTION, dict[str, Any], VoiceFolderError, "export the voice again")
        description["config"]["vocoder"] = settings.model_dump(mode="json")
        description.pop(VOCODER, None)
        if vocoder is not None:
            (partial / VOCODER).mkdir()
            for name in INFERENCE_FILES:
                shutil.copyfile(vocoder / name, partial / VOCODER / name)
            made = read_record(vocoder / VOCODER_DESCRIPTION, dict[str, Any], VoiceFolderError, "export it again")
            description[VOCODER] = made
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), "utf-8")
    return destination


def write_training_sentences(folder: Path, sentences: Iterable[str]) -> Path:
    """Writes the hashes (`model.text.sentence_hash`), one per line, into a voice folder."""
    return write_text(folder / TRAINING_SENTENCES, "".join(f"{sentence}\n" for sentence in sorted(sentences)))


def read_training_sentences(folder: Path) -> frozenset[str] | None:
    """Returns the hashes of the sentences that a voice was trained on; None where it does not record them."""
    path = folder / TRAINING_SENTENCES
    return frozenset(path.read_text("utf-8").split()) if path.is_file() else None


def vocoder_of(voice: Path) -> Path | None:
    """Returns the folder of the vocoder's weights inside a voice; None where it has none."""
    folder = voice / VOCODER
    return folder if folder.is_dir() else None


def voice_hash(voice: Path) -> str:
    """Returns a hash (64 hex digits) of the settings and of the weights of a voice and its vocoder.

    Hashing the description is enough, because it holds the hashes of both weights.
    """
    return sha256_of_file(voice / DESCRIPTION)
