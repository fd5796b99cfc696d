"""Worker processes of feature extraction."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from model.config.data import PreprocessSettings
from model.corpus.manifest import Clip
from model.errors import FeatureError
from model.features.extractor import ClipExtractor, Recordings
from model.features.shards import write_shard
from model.threads import single_threaded

SECONDS_WORTH_A_WORKER = 900.0
"""Seconds of audio per worker below which starting another process costs more than it saves."""
TASKS_AHEAD = 4
"""Jobs submitted per worker: enough to keep it busy, while results are consumed as they arrive."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A few clips to extract to one piece.

    Attributes:
        recordings: Source of their audio.
        clips: The clips.
        keys: Keys of the clips, from `clip_key`.
        folder: Folder of the piece.
        config: Settings of extraction.
    """

    recordings: Recordings
    clips: list[Clip]
    keys: list[str]
    folder: Path
    config: PreprocessSettings


def run_jobs(jobs: Sequence[Job], seconds: float, workers: int) -> Iterator[Path]:
    """Runs jobs in worker processes and yields the pieces they write, in the order of the jobs.

    Args:
        jobs: The jobs.
        seconds: Seconds of audio in all jobs.
        workers: Number of processes; 0 chooses it by the number of cores and the amount of audio.

    Raises:
        FeatureError: a clip cannot be used, the disk is full, or a worker was killed.
    """
    if not workers:
        workers = min(len(os.sched_getaffinity(0)), max(1, int(seconds // SECONDS_WORTH_A_WORKER)))
    workers = min(workers, len(jobs))
    if workers <= 1:
        extractor = None
        for job in jobs:
            extractor = extractor or ClipExtractor(job.config)
            with single_threaded():
                piece = _extract_piece(extractor, job)
            yield piece
        return
    # Spawned, because a fork of a process with torch threads can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        waiting: deque[Future[Path]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(_run_job, job))
                if len(waiting) >= workers * TASKS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise FeatureError(
                "a process that extracts features was killed (out of memory?); run again, with fewer --workers if it "
                "happens again: what is extracted so far is kept"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # so that an error does not wait for all remaining jobs


_worker_extractor: ClipExtractor | None = None


def _start_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed; otherwise it would wait for jobs forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process was not started by multiprocessing")
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _run_job(job: Job) -> Path:
    global _worker_extractor  # one per process, as it holds the speaker encoder's weights
    _worker_extractor = _worker_extractor or ClipExtractor(job.config)
    return _extract_piece(_worker_extractor, job)


def _extract_piece(extractor: ClipExtractor, job: Job) -> Path:
    extracted = extractor.extract(job.recordings, job.clips, job.keys)
    return write_shard(job.folder, [item.rows() for item in extracted])
