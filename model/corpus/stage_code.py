"""Code hashes of the data stages, which make DVC rerun a stage when its code changes."""

from __future__ import annotations

from pathlib import Path

from model.code_hash import code_hash
from model.config.data import CorpusConfig
from model.files import write_text

STAGES = ("ingest", "validate", "split")
TRACKED_BY_DVC = ("model.config",)
"""Excluded packages: DVC tracks each setting as a parameter."""


def stage_hashes(config: CorpusConfig) -> dict[str, str]:
    """Returns the code hash of each stage, with only those readers that the corpus needs."""
    formats = {config.format, *(source.format for source in config.sources)} - {"mixed"}
    readers = [f"model.corpus.readers.{name}" for name in sorted(formats)]
    return {
        stage: code_hash(f"model.corpus.{stage}", *(readers if stage == "ingest" else []), exclude=TRACKED_BY_DVC)
        for stage in STAGES
    }


def write_stage_hashes(folder: Path, config: CorpusConfig) -> dict[str, str]:
    """Writes one file per stage into `folder` and returns the hashes."""
    hashes = stage_hashes(config)
    for stage, value in hashes.items():
        write_text(folder / stage, value + "\n")
    return hashes
