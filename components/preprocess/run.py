"""Extracts features from a corpus, and keeps them under the hash of the data, the settings and the code."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.contracts import PreprocessOutput, PreprocessPartOutput, ResolveDataOutput
from components.feature_remote import CACHE, REMOTE_FILE, push
from components.runner import emit, parse_settings
from components.state import State
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.data import PreprocessSettings
from model.features.extract import Progress, build_features
from model.features.index import INDEX, SHARDS, read_metadata

MAX_EARLIER_STORES = 8
"""Largest number of earlier stores that are searched for unchanged clips."""
PARTS = "feature-parts"
"""Folder of the state with the extracted parts of a corpus, until they are joined."""


def run(data: str, settings: str, parts: Sequence[str] = ()) -> PreprocessOutput:
    """Builds the features of a corpus, or reuses those built before.

    Args:
        data: Path of the `ResolveDataOutput`.
        settings: JSON of the `PreprocessSettings`.
        parts: Paths of the `PreprocessPartOutput`s whose shards are joined.
    """
    corpus = ResolveDataOutput.read(data)
    config = parse_settings(PreprocessSettings, settings)
    extracted = [PreprocessPartOutput.read(part).shards for part in parts]
    folder = build(corpus.corpus, corpus.data_hash, config, extracted)
    examination = folder
    if corpus.examination_hash != corpus.data_hash:
        examination = build(corpus.examination, corpus.examination_hash, config)
    index = read_metadata(folder)
    return PreprocessOutput(
        summary=f"{index['number_of_clips']} clips, {index['number_of_frames']} frames",
        features=folder,
        features_hash=index["content_hash"],
        examination=examination,
        examination_hash=read_metadata(examination)["content_hash"],
    )


def build(corpus: Path, data_hash: str, config: PreprocessSettings, extracted: Sequence[Path] = ()) -> Path:
    """Builds the features of a corpus unless they are there, and returns their folder.

    Args:
        corpus: Folder of the corpus.
        data_hash: Hash of its content.
        config: Settings of the features.
        extracted: Folders of shards of parts of the corpus.
    """
    key = store_key(data_hash, config)
    state = State.locate()
    folder = state.features(key)
    with state.lock(f"features-{key}"):
        if not (folder / INDEX).is_file():
            build_features(
                corpus,
                folder,
                config,
                code=extraction_code(),
                earlier=[*extracted, *earlier_stores(folder.parent), state.root / CACHE],
                report=report_progress,
            )
        if config.features.remote and not (folder / REMOTE_FILE).is_file():
            push(folder, config.features.remote, config.features.cache_megabytes, state)
        for part in extracted:
            shutil.rmtree(part / SHARDS, ignore_errors=True)  # the store holds hard links to them by now
    return folder


def store_key(data_hash: str, settings: PreprocessSettings) -> str:
    """Returns the key of the features of a corpus."""
    return settings_hash(settings, {"data": data_hash, "code": extraction_code()})


def extraction_code() -> str:
    """Returns the hash of the code that extracts; features of other code are not reused."""
    return code_hash("components.preprocess.run")


def earlier_stores(parent: Path) -> list[Path]:
    """Returns the stores that unchanged clips are taken from, newest first; interrupted builds are among them."""
    stores = (path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else ()
    return sorted(stores, key=lambda path: path.stat().st_mtime, reverse=True)[:MAX_EARLIER_STORES]


def report_progress(progress: Progress) -> None:
    """Reports the progress of the extraction on the step's output."""
    values = {"x real time": round(progress.speed), "s left": round(progress.time_left)} if progress.speed else {}
    emit("preprocess", "progress", done=progress.done, total=progress.total, **values)
