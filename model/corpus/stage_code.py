"""Code hashes of the data stages, which make DVC rerun a stage when its code changes."""

from __future__ import annotations

from pathlib import Path

from model.code_hash import code_hash
from model.config.data import CorpusConfig
from model.corpus.readers.generated import engine_versions
from model.files import write_text

GENERATED = "generated"
STAGES = ("ingest", "validate", "split")
TRACKED_BY_DVC = ("model.config",)
"""Excluded packages: DVC tracks each setting as a parameter."""


def stage_hashes(config: CorpusConfig) -> dict[str, str]:
    """Returns the code hash of each stage, with only those readers that the corpus needs.

    For a generated corpus, `ingest` also depends on the engines that speak on this machine: `corpus.engine` may be
    `auto`, and other engines or versions give other audio.

    Raises:
        CorpusError: the engine of a generated corpus is not installed, or has fewer voices than wanted.
    """
    formats = {config.format, *(source.format for source in config.sources)} - {"mixed"}
    readers = [f"model.corpus.readers.{name}" for name in sorted(formats)]
    hashes = {
        stage: code_hash(f"model.corpus.{stage}", *(readers if stage == "ingest" else []), exclude=TRACKED_BY_DVC)
        for stage in STAGES
    }
    if GENERATED in formats:
        engines = ", ".join(f"{language}: {engine}" for language, engine in engine_versions(config).items())
        hashes["ingest"] += f" ({engines})"
    return hashes


def write_stage_hashes(folder: Path, config: CorpusConfig) -> dict[str, str]:
    """Writes one file per stage into `folder` and returns the hashes."""
    hashes = stage_hashes(config)
    for stage, value in hashes.items():
        write_text(folder / stage, value + "\n")
    return hashes
