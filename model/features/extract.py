"""Building of feature stores from corpora. Features of unchanged clips are reused; interrupted builds resume."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.audio.mel import extractor_hash
from model.config.data import PreprocessSettings
from model.corpus.manifest import Clip
from model.errors import FeatureError
from model.features.extractor import Recordings, clip_key, extraction_hash
from model.features.index import (
    CLIPS,
    NAMES,
    ROW,
    SPEAKER_VECTORS,
    SPLITS,
    ClipTable,
    FeatureIndex,
    save_file,
)
from model.features.packing import Packer
from model.features.shards import MOMENTS
from model.features.statistics import corpus_statistics
from model.features.workers import Job, run_jobs
from model.text.symbols import symbols_hash

log = logging.getLogger(__name__)

CHUNK = 16
"""Clips per job; a killed build loses the running jobs only."""
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of extraction.

    Attributes:
        done: Clips that are extracted or reused.
        total: All clips.
        reused: Clips that are reused from earlier stores.
        seconds: Seconds of audio extracted in this run.
        left_seconds: Seconds of audio still to extract.
        elapsed: Wall time since extraction began, in seconds.
    """

    done: int
    total: int
    reused: int
    seconds: float
    left_seconds: float
    elapsed: float

    @property
    def speed(self) -> float:
        """Seconds of audio extracted per second."""
        return self.seconds / self.elapsed if self.elapsed else 0.0

    @property
    def time_left(self) -> float:
        """Estimated remaining wall time in seconds."""
        return self.left_seconds / self.speed if self.speed else 0.0


Reporter = Callable[[Progress], None]


@dataclass(frozen=True)
class Part:
    """Part `number` (from 0) of `of` equal parts of a corpus."""

    number: int
    of: int

    def clips(self, clips: list[Clip]) -> list[Clip]:
        """Selects the clips of this part."""
        return clips[self.number * len(clips) // self.of : (self.number + 1) * len(clips) // self.of]


def build_features(
    corpus: Path | Recordings,
    destination: Path,
    config: PreprocessSettings,
    *,
    code: str = "",
    earlier: Sequence[Path] = (),
    workers: int = 0,
    report: Reporter = lambda _: None,
) -> FeatureIndex:
    """Extracts the features of a corpus to a feature store.

    Features are reused from the store in `destination`, an interrupted build of it, and `earlier` stores. A clip is
    extracted again if its recording or text changed, and not if its speaker or split changed.

    Args:
        corpus: Folder with a manifest whose clips have their split, or recordings elsewhere.
        destination: The feature store, replaced once the new one is complete.
        config: Sections `audio` and `features`.
        code: Hash of the source code of extraction; features made by other code are not reused.
        earlier: Stores, or folders of `extract_part`, to reuse features from.
        workers: Number of processes; 0 chooses it by the number of cores and clips. It does not change the result.
        report: Called with the progress.

    Raises:
        FeatureError: the corpus has no clips or no splits, a clip cannot be used (the message names it), the disk is
            full, or another process builds the same store. After it is fixed, a rerun resumes.
        ManifestError: the manifest is missing or malformed.
        SpeakerEncoderError: the pretrained weights are missing.
    """
    recordings = corpus if isinstance(corpus, Recordings) else Recordings(Path(corpus))
    clips = _checked(recordings.clips(), recordings)
    with _build_folder(destination) as folder:
        keys = _clip_keys(recordings, clips, config, code)
        sources = [folder, destination, *earlier]
        packer = _extract(
            recordings, clips, keys, config, folder=folder, sources=sources, workers=workers, report=report
        )
        index = _write_index(folder, clips, keys, packer, config)
        _replace(destination, folder)
    if index.unknown_symbols:
        log.warning("characters without a symbol, left out of the token ids: %s", index.unknown_symbols)
    return index


def extract_part(
    corpus: Path | Recordings,
    destination: Path,
    config: PreprocessSettings,
    part: Part,
    *,
    code: str = "",
    earlier: Sequence[Path] = (),
    workers: int = 0,
    report: Reporter = lambda _: None,
) -> int:
    """Extracts a part of a corpus to shards, which `build_features(..., earlier=...)` joins.

    Args:
        corpus, config, code, earlier, workers, report: As for `build_features`.
        destination: Folder of the shards of this part. An interrupted extraction to it resumes.
        part: The part to extract.

    Returns:
        Number of clips in the part.
    """
    recordings = corpus if isinstance(corpus, Recordings) else Recordings(Path(corpus))
    clips = part.clips(_checked(recordings.clips(), recordings))
    destination.mkdir(parents=True, exist_ok=True)
    with _locked(destination):
        keys = _clip_keys(recordings, clips, config, code)
        sources = [destination, *earlier]
        _extract(recordings, clips, keys, config, folder=destination, sources=sources, workers=workers, report=report)
    return len(clips)


def _checked(clips: list[Clip], corpus: Recordings) -> list[Clip]:
    if not clips:
        raise FeatureError(f"{corpus}: the manifest has no clips; add recordings and run `dvc repro`")
    for clip in clips:
        if clip.split not in SPLITS:
            raise FeatureError(
                f"{corpus}: clip {clip.id} has the split {clip.split!r}, not one of {', '.join(SPLITS)}; "
                "features are built from the output of the split stage (`dvc repro`)"
            )
    return clips


def _clip_keys(recordings: Recordings, clips: list[Clip], config: PreprocessSettings, code: str) -> list[str]:
    extraction = extraction_hash(config, code)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        digests = pool.map(recordings.digest, clips)
        return [clip_key(extraction, digest, clip) for digest, clip in zip(digests, clips, strict=True)]


def _extract(
    recordings: Recordings,
    clips: list[Clip],
    keys: list[str],
    config: PreprocessSettings,
    *,
    folder: Path,
    sources: Sequence[Path],
    workers: int,
    report: Reporter,
) -> Packer:
    """Packs the features of all clips into the shards of `folder`, reused from `sources` or extracted."""
    packer = Packer(folder, config.features.shard_megabytes * MEGABYTE)
    packer.reuse(sources, keys)
    missing: dict[str, Clip] = {}  # key -> one of the clips with this key
    for key, clip in zip(keys, clips, strict=True):
        if key not in packer.available:
            missing.setdefault(key, clip)
    waiting = list(missing.items())
    jobs = [
        Job(
            recordings=recordings,
            clips=[clip for _, clip in chunk],
            keys=[key for key, _ in chunk],
            folder=packer.pieces,
            config=config,
        )
        for chunk in (waiting[i : i + CHUNK] for i in range(0, len(waiting), CHUNK))
    ]
    reused, began = len(clips) - len(missing), time.monotonic()
    done, seconds, left = reused, 0.0, sum(clip.seconds for clip in missing.values())

    def report_progress() -> None:
        report(
            Progress(
                done=done,
                total=len(clips),
                reused=reused,
                seconds=seconds,
                left_seconds=max(left, 0.0),
                elapsed=time.monotonic() - began,
            )
        )

    report_progress()
    for job, piece in zip(jobs, run_jobs(jobs, left, workers), strict=True):
        packer.add(piece)
        extracted = sum(clip.seconds for clip in job.clips)
        done, seconds, left = done + len(job.clips), seconds + extracted, left - extracted
        report_progress()
    packer.close()
    return packer


def _write_index(
    folder: Path, clips: list[Clip], keys: list[str], packer: Packer, config: PreprocessSettings
) -> FeatureIndex:
    """Writes the index of the packed clips and returns it."""
    audio = config.audio
    speakers = sorted({clip.speaker for clip in clips})
    languages = sorted({clip.language for clip in clips})
    rows, moments, vectors, unknown = _collect(packer, keys)
    rows["split"] = _positions([clip.split for clip in clips], SPLITS)
    rows["speaker"] = _positions([clip.speaker for clip in clips], speakers)
    rows["language"] = _positions([clip.language for clip in clips], languages)
    texts = [text.encode() for clip in clips for text in (clip.id, clip.text)]
    rows["id_end"], rows["text_end"] = np.cumsum([len(text) for text in texts]).reshape(-1, 2).T
    names = b"".join(texts)
    index = FeatureIndex(
        extractor_hash=extractor_hash(audio),
        symbols_hash=symbols_hash(),
        audio=audio,
        features=config.features,
        speakers=speakers,
        languages=languages,
        statistics=corpus_statistics(
            moments, rows, speakers, sample_rate=audio.sample_rate, train=SPLITS.index("train")
        ),
        unknown_symbols=dict(sorted(unknown.items())),
        shards=[shard.path.name for shard in packer.shards],
        checksums={
            name: save_file(folder, name, content)
            for name, content in ((NAMES, names), (CLIPS, rows), (SPEAKER_VECTORS, vectors))
        },
        clips=ClipTable(rows, names, speakers=speakers, languages=languages, sample_rate=audio.sample_rate),
    )
    index.write(folder)
    return index


def _positions(values: list[str], names: Sequence[str]) -> list[int]:
    """Returns the position of each value in `names`."""
    positions = {name: position for position, name in enumerate(names)}
    return [positions[value] for value in values]


def _collect(packer: Packer, keys: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, Counter[str]]:
    """Collects the index entries, moments and speaker vectors of all clips from the packed shards.

    Returns:
        Index rows (clips,) with the columns of extraction and storage filled, moments (clips, features, 3), speaker
        vectors (clips, V), and the number of times that characters without a symbol were left out.
    """
    locations = np.array([packer.locations[key] for key in keys], dtype=np.int64)  # (clips, 2): shard, row in it
    rows, moments = np.zeros(len(keys), ROW), np.zeros((len(keys), len(MOMENTS), 3))
    vectors = np.zeros((len(keys), packer.shards[0].speaker_vectors.shape[1]), np.float32)
    unknown: Counter[str] = Counter()
    rows["shard"] = locations[:, 0]
    for number, shard in enumerate(packer.shards):
        clips = np.flatnonzero(locations[:, 0] == number)
        own = locations[clips, 1]
        for column in ("digest", "frames", "tokens", "samples", "start", "gain"):
            rows[column][clips] = shard.records[column][own]
        rows["mel_start"][clips], rows["token_start"][clips] = shard.mel_starts[own], shard.token_starts[own]
        moments[clips], vectors[clips] = shard.records["moments"][own], shard.speaker_vectors[own]
        if shard.unknown:
            for clip in clips:
                unknown.update(shard.unknown.get(keys[clip], {}))
    return rows, moments, vectors, unknown


@contextmanager
def _build_folder(destination: Path) -> Iterator[Path]:
    """Yields the locked folder in which a store is built; unlike `atomic_write`, it is kept when a build fails."""
    folder = destination.with_name(f".{destination.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        yield folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks a folder against other processes; the kernel releases the lock of a process that dies.

    Raises:
        FeatureError: another process holds the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FeatureError(f"{folder}: another process is writing there; wait for it to end") from error
    else:
        yield
    finally:
        os.close(descriptor)


def _replace(destination: Path, folder: Path) -> None:
    """Renames `folder` to `destination`, replacing a folder that is there."""
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        os.replace(destination, old)
    os.replace(folder, destination)
    shutil.rmtree(old, ignore_errors=True)
