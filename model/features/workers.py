"""The processes that extract features, and how much work is given to them at a time."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
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
"""Audio below which starting another process costs more than it saves."""
TASKS_AHEAD = 4
"""Tasks per worker that wait in its queue: enough to keep it busy, and the results of a long corpus never pile up."""


@dataclass(frozen=True)
class Job:
    """A few clips (with their keys) to be extracted to one file in `folder`."""

    recordings: Recordings
    clips: list[Clip]
    keys: list[str]
    folder: Path
    config: PreprocessSettings


def run_jobs(jobs: Iterator[Job], count: int, seconds: float, workers: int) -> Iterator[Path]:
    """The files that the jobs write, in order.

    Args:
        jobs: The work.
        count: Number of jobs.
        seconds: Speech in all of them.
        workers: Processes; 0 takes as many as there are cores and work for.

    Raises:
        FeatureError: a clip cannot be used, the disk is full, or a worker was killed.
    """
    if not workers:
        workers = min(len(os.sched_getaffinity(0)), max(1, int(seconds // SECONDS_WORTH_A_WORKER)))
    workers = min(workers, count)
    if workers <= 1:
        extractor = None
        for job in jobs:
            extractor = extractor or ClipExtractor(job.config)
            with single_threaded():
                piece = _extract_piece(extractor, job)
            yield piece
        return
    # Fresh processes: a fork of a process that has run torch threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        waiting: deque = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(_work, job))
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
            pool.shutdown(wait=True, cancel_futures=True)  # else an error would wait for all the work left


_worker_extractor: ClipExtractor | None = None


def _start_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and they would wait for work for ever."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(job: Job) -> Path:
    global _worker_extractor  # one per process: it holds the speaker encoder's weights
    _worker_extractor = _worker_extractor or ClipExtractor(job.config)
    return _extract_piece(_worker_extractor, job)


def _extract_piece(extractor: ClipExtractor, job: Job) -> Path:
    extracted = extractor.extract(job.recordings, job.clips, job.keys)
    return write_shard(job.folder, [item.rows() for item in extracted])
