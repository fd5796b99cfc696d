"""Corpus -> feature store. Only clips that no earlier store holds are extracted; what is done survives a kill."""

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
from model.features.extractor import Recordings, clip_key, recipe
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
from model.features.statistics import corpus_statistics
from model.features.workers import Job, run_jobs
from model.text.symbols import symbols_hash

log = logging.getLogger(__name__)

CHUNK = 16
"""Clips of one task; a kill costs no more than the tasks that were running."""
MEGABYTE = 2**20


@dataclass(frozen=True)
class Progress:
    """How far extraction is.

    Attributes:
        done, total: Clips, those included that were extracted before.
        reused: Clips that were extracted before.
        seconds: Speech extracted now.
        left_seconds: Speech still to be extracted.
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
        """Seconds of speech a second."""
        return self.seconds / self.elapsed if self.elapsed else 0.0

    @property
    def time_left(self) -> float:
        """Expected wall time of the rest, in seconds."""
        return self.left_seconds / self.speed if self.speed else 0.0


Reporter = Callable[[Progress], None]


@dataclass(frozen=True)
class Part:
    """One of several equal parts of a corpus: number `number` of `of`, counted from 0."""

    number: int
    of: int

    def clips(self, clips: list[Clip]) -> list[Clip]:
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
    """Extract the features of a corpus.

    Clips that the store in `destination`, an interrupted build of it, or an `earlier` store holds are taken from there:
    a changed recording or text redoes its own clip, a changed speaker or split none.

    Args:
        corpus: Folder with a manifest whose clips have their split, or its recordings elsewhere.
        destination: The feature store; replaced in one move once the new one is complete.
        config: Sections `audio` and `features` act.
        code: Hash of the sources that extract; features made by other sources are not taken over.
        earlier: Stores (or folders of `extract_part`) to take features from.
        workers: Processes; 0 takes as many as there are cores and work for. The result is the same for any number.
        report: Hears of the progress.

    Raises:
        FeatureError: the corpus has no clips or no splits, a clip cannot be used (the message names it), the disk is
            full, or another process builds the same store. After the cure a rerun goes on where this one stopped.
        ManifestError: the manifest is missing or malformed.
        SpeakerEncoderError: the pretrained weights are missing.
    """
    recordings = corpus if isinstance(corpus, Recordings) else Recordings(Path(corpus))
    clips = _checked(recordings.clips(), recordings)
    with _building(destination) as folder:
        keys = _keys(recordings, clips, config, code)
        sources = [folder, destination, *earlier]
        packer = _extract(recordings, clips, keys, config, folder, sources, workers, report)
        index = _write_index(folder, clips, keys, packer, config)
        _move_into_place(folder, destination)
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
    """Extract one of several equal parts of a corpus to shards, for `build_features(..., earlier=...)` to join.

    Args:
        destination: Folder of this part; what an interrupted attempt left there is gone on with.
        part: Which; everything else as of `build_features`.

    Returns:
        Number of clips of the part.
    """
    recordings = corpus if isinstance(corpus, Recordings) else Recordings(Path(corpus))
    clips = part.clips(_checked(recordings.clips(), recordings))
    destination.mkdir(parents=True, exist_ok=True)
    with _locked(destination):
        keys = _keys(recordings, clips, config, code)
        _extract(recordings, clips, keys, config, destination, [destination, *earlier], workers, report)
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


def _keys(recordings: Recordings, clips: list[Clip], config: PreprocessSettings, code: str) -> list[str]:
    made_by = recipe(config, code)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        digests = pool.map(recordings.digest, clips)
        return [clip_key(made_by, digest, clip) for digest, clip in zip(digests, clips, strict=True)]


def _extract(
    recordings: Recordings,
    clips: list[Clip],
    keys: list[str],
    config: PreprocessSettings,
    folder: Path,
    sources: Sequence[Path],
    workers: int,
    report: Reporter,
) -> Packer:
    """Bring every clip into the shards of `folder`."""
    packer = Packer(folder, config.features.shard_megabytes * MEGABYTE)
    packer.reuse(sources, keys)
    missing: dict[str, Clip] = {}
    for key, clip in zip(keys, clips, strict=True):
        if key not in packer.claimed:
            missing.setdefault(key, clip)
    reused, began = len(clips) - len(missing), time.monotonic()
    left, spoken = sum(clip.seconds for clip in missing.values()), 0.0
    done = reused
    report(Progress(done, len(clips), reused, 0.0, left, 0.0))
    waiting = list(missing.items())
    tasks = [waiting[i : i + CHUNK] for i in range(0, len(waiting), CHUNK)]
    jobs = (
        Job(recordings, [clip for _, clip in task], [key for key, _ in task], packer.pieces, config) for task in tasks
    )
    for task, piece in zip(tasks, run_jobs(jobs, len(tasks), left, workers), strict=True):
        packer.add(piece)
        now = sum(clip.seconds for _, clip in task)
        done, spoken, left = done + len(task), spoken + now, left - now
        report(Progress(done, len(clips), reused, spoken, max(left, 0.0), time.monotonic() - began))
    packer.close()
    return packer


def _write_index(
    folder: Path, clips: list[Clip], keys: list[str], packer: Packer, config: PreprocessSettings
) -> FeatureIndex:
    speakers = sorted({clip.speaker for clip in clips})
    languages = sorted({clip.language for clip in clips})
    numbers = {name: number for number, name in enumerate(speakers)}
    spoken = {name: number for number, name in enumerate(languages)}
    splits = {name: number for number, name in enumerate(SPLITS)}
    places = np.array([packer.held[key] for key in keys], dtype=np.int64)  # (clips, 2): shard, row
    rows, moments = np.zeros(len(clips), ROW), np.zeros((len(clips), 3, 3))
    vectors = np.zeros((len(clips), packer.shards[0].speaker_vectors.shape[1]), np.float32)
    unknown: Counter = Counter()
    for number, shard in enumerate(packer.shards):
        here = np.flatnonzero(places[:, 0] == number)
        own = places[here, 1]
        for column in ("digest", "frames", "tokens", "samples", "start", "gain"):
            rows[column][here] = shard.records[column][own]
        rows["mel_start"][here], rows["token_start"][here] = shard.mel_starts[own], shard.token_starts[own]
        moments[here], vectors[here] = shard.records["moments"][own], shard.speaker_vectors[own]
        for position in here if shard.unknown else ():
            unknown.update(shard.unknown.get(keys[position], {}))
    rows["shard"] = places[:, 0]
    rows["split"] = [splits[clip.split] for clip in clips]
    rows["speaker"] = [numbers[clip.speaker] for clip in clips]
    rows["language"] = [spoken[clip.language] for clip in clips]
    texts = [item.encode() for clip in clips for item in (clip.id, clip.text)]
    rows["id_end"], rows["text_end"] = np.cumsum([len(text) for text in texts]).reshape(-1, 2).T
    names = b"".join(texts)
    checksums = {
        name: save_file(folder, name, content)
        for name, content in ((NAMES, names), (CLIPS, rows), (SPEAKER_VECTORS, vectors))
    }
    audio = config.audio
    index = FeatureIndex(
        extractor_hash=extractor_hash(audio),
        symbols_hash=symbols_hash(),
        audio=audio,
        features=config.features,
        speakers=speakers,
        languages=languages,
        statistics=corpus_statistics(moments, rows, speakers, audio.sample_rate, SPLITS.index("train")),
        unknown_symbols=dict(sorted(unknown.items())),
        shards=[shard.path.name for shard in packer.shards],
        checksums=checksums,
        clips=ClipTable(rows, names, speakers, languages, audio.sample_rate),
    )
    index.write(folder)
    return index


@contextmanager
def _building(destination: Path) -> Iterator[Path]:
    """The folder beside `destination` that a build fills; an interrupted build's is gone on with."""
    folder = destination.with_name(f".{destination.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        yield folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process at a time writes a folder; the kernel releases the lock of a process that dies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FeatureError(f"{folder}: another process is writing there; wait for it to end") from error
    else:
        yield
    finally:
        os.close(descriptor)


def _move_into_place(folder: Path, destination: Path) -> None:
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        os.replace(destination, old)
    os.replace(folder, destination)
    shutil.rmtree(old, ignore_errors=True)
