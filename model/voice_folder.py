"""What lies in a voice's folder, and how a vocoder comes into it: plain files, without loading any weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from pydantic import BaseModel

WEIGHTS, DESCRIPTION, VOCODER = "model.safetensors", "voice.json", "vocoder"
SPEAKING_FILES = ("generator.safetensors", "vocoder.json")
"""Files of a vocoder's folder that speaking needs; what only training needs stays behind."""


def with_vocoder(voice: Path, destination: Path, settings: BaseModel, vocoder: Path | None) -> Path:
    """Copy a voice and give the copy a vocoder, in one move.

    Args:
        voice: Folder of an exported voice.
        destination: The copy; replaced where it is there.
        settings: The vocoder's settings, kept in the voice.
        vocoder: Folder of a trained vocoder; `None` where the settings name one that needs no weights.
    """
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(voice, partial, ignore=shutil.ignore_patterns(VOCODER))
    described = json.loads((voice / DESCRIPTION).read_text("utf-8"))
    described["config"]["vocoder"] = settings.model_dump(mode="json")
    described.pop(VOCODER, None)
    if vocoder is not None:
        (partial / VOCODER).mkdir()
        for name in SPEAKING_FILES:
            shutil.copyfile(vocoder / name, partial / VOCODER / name)
        described[VOCODER] = json.loads((vocoder / "vocoder.json").read_text("utf-8"))
    (partial / DESCRIPTION).write_text(json.dumps(described, indent=1, ensure_ascii=False), "utf-8")
    shutil.rmtree(destination, ignore_errors=True)
    os.replace(partial, destination)
    return destination


def vocoder_of(voice: Path) -> Path | None:
    """Folder of the vocoder's weights inside a voice; `None` where it has none."""
    folder = voice / VOCODER
    return folder if folder.is_dir() else None


def voice_hash(voice: Path) -> str:
    """Identifies a voice: its weights, its vocoder's, and its settings (the description holds the hashes of both)."""
    return hashlib.sha256((voice / DESCRIPTION).read_bytes()).hexdigest()
