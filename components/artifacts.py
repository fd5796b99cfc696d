"""Files of a registered voice: hashed when the version is made, compared before anything is loaded from them."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from model.errors import MyXTTSError
from model.files import sha256_of_file

ARTIFACT_TAG = "artifact.sha256"
"""Tag of a version: hash of all of its files."""
VOICE_TAG = "voice.sha256"
EXAMPLES = ("input_example.json", "serving_input_example.json")
GENERATED = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", *EXAMPLES)
"""Files that MLflow adds to the uploaded ones."""
META = "registered_model_meta"
"""File that MLflow adds to a download of some stores."""
COMPILED = "__pycache__"
"""Folder that Python adds where code is loaded from a local store; nothing here loads code from it."""


class ArtifactError(MyXTTSError):
    """The files of a registered voice are not those that were registered; the message names them and the fix."""


def file_hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a downloaded version by its relative path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and COMPILED not in path.parts)
    found = {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in paths}
    return {name: digest for name, digest in found.items() if name != META}


def combined_hash(hashes: Mapping[str, str]) -> str:
    """Returns one SHA-256 for the names and contents of all files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def hash_of_upload(folder: Path, sources: Iterable[Path]) -> str:
    """Returns the hash of a version that was just uploaded, and downloaded again to `folder`.

    Args:
        folder: The download.
        sources: Files and folders that were uploaded.

    Raises:
        ArtifactError: a file came back with other content than any that was uploaded.
    """
    hashes = file_hashes(folder)
    known = {sha256_of_file(file) for source in sources for file in _files(source)}
    if foreign := [name for name, digest in hashes.items() if digest not in known and name not in GENERATED]:
        raise ArtifactError(
            f"{folder}: {', '.join(foreign)} came back from MLflow's artifact store with other content than was "
            "uploaded; check the store and who may write to it, then register the voice again"
        )
    return combined_hash(hashes)


def verify_files(folder: Path, what: str, tags: Mapping[str, str]) -> None:
    """Compares the files of a downloaded version with the hashes in its tags.

    Args:
        folder: The download.
        what: Name of the version, for messages.
        tags: Tags of the version. One that was registered before all files were hashed has the hash of the voice's
            description alone, which holds those of the weights.

    Raises:
        ArtifactError: they differ, or no hash is recorded.
    """
    if ARTIFACT_TAG in tags:
        good = combined_hash(file_hashes(folder)) == tags[ARTIFACT_TAG]
    elif VOICE_TAG in tags:
        description = folder / "artifacts" / "voice" / "voice.json"
        good = description.is_file() and sha256_of_file(description) == tags[VOICE_TAG]
    else:
        raise ArtifactError(f"{what} has no recorded hash to compare its files with; register the voice again")
    if not good:
        raise ArtifactError(
            f"{what}: the files in {folder} are not those that were registered, so they are not loaded; check who may "
            "write to MLflow's artifacts, delete the version and register the voice again"
        )


def _files(source: Path) -> list[Path]:
    return [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
