"""The `ingest` stage: a corpus of any format becomes normalised audio and one manifest."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.audio.io import AudioError, resample, write_audio
from model.config.schema import Config
from model.corpus.folders import stage_folder
from model.corpus.long_clips import divide
from model.corpus.manifest import Clip, write_manifest
from model.corpus.problems import NOTE, Problem, write_problems
from model.corpus.readers import read_corpus
from model.corpus.sources import Sound, Timings, Utterance, audio_reason
from model.corpus.timings import write_alignments
from model.errors import CorpusError

logger = logging.getLogger(__name__)

AUDIO_FOLDER = "audio"
ORIGINS = "origins.json"
"""Clip id -> the recording (or voice) it was made from: what a finding names."""
NAMES = "names.json"
"""Clip id -> what the corpus itself names the clip by, where that is not the id."""


def ingest(config: Config, destination: Path, progress: bool = False) -> list[Clip]:
    """Read or generate the corpus of `config.corpus` into `destination`.

    Writes `manifest.jsonl`, `audio/<id>.flac` (mono, 16 bit, `audio.sample_rate`), `problems.jsonl` (rows and files
    that could not be read), `origins.json` (clip -> recording), `names.json` (clip -> its name in the corpus),
    `source.json` (format and engines) and, for speech
    whose speaker tells when each phone is said, `alignments.jsonl`.

    Returns:
        The clips written.

    Raises:
        CorpusError: the corpus as a whole cannot be read or made.
    """
    source = read_corpus(config.corpus)
    logger.info("corpus %s: %d utterances, engines %s", config.corpus.name, len(source.utterances), source.engines)
    with stage_folder(destination) as folder:
        (folder / AUDIO_FOLDER).mkdir()

        def store(utterance: Utterance) -> list[_Stored] | Problem:
            return _store(utterance, folder, config)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(
                tqdm(
                    pool.map(store, source.utterances),
                    total=len(source.utterances),
                    desc="ingest",
                    unit="clip",
                    disable=None if progress else True,  # None: only on a terminal
                )
            )
        stored = [item for result in results if not isinstance(result, Problem) for item in result]
        problems = [*source.problems, *(result for result in results if isinstance(result, Problem))]
        problems += [note for item in stored for note in item.notes]
        if not stored and not problems:
            raise CorpusError(f"corpus {config.corpus.name}: has no utterances; check corpus.path and corpus.format")
        clips = [item.clip for item in stored]
        write_manifest(folder, clips)
        write_problems(folder, problems)
        if timings := {item.clip.id: item.timings for item in stored if item.timings}:
            write_alignments(folder, timings)
        origins = {utterance.id: utterance.origin for utterance in source.utterances}
        origins |= {item.clip.id: item.origin for item in stored}
        (folder / ORIGINS).write_text(json.dumps(origins, indent=0, ensure_ascii=False) + "\n", "utf-8")
        (folder / NAMES).write_text(json.dumps(source.names, indent=0, ensure_ascii=False) + "\n", "utf-8")
        about = {"name": config.corpus.name, "format": config.corpus.format, "engines": list(source.engines)}
        (folder / "source.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    return clips


@dataclass(frozen=True)
class _Stored:
    """A clip whose audio is written, and where it comes from."""

    clip: Clip
    origin: str
    timings: Timings | None = None
    notes: tuple[Problem, ...] = ()


def _store(utterance: Utterance, folder: Path, config: Config) -> list[_Stored] | Problem:
    """Write the audio of an utterance: one clip, or several where it is long and can be divided."""
    try:
        sound = utterance.record()
    except AudioError as error:
        return Problem(utterance.id, utterance.origin, audio_reason(error), error.reason)
    rate = config.audio.sample_rate
    samples = resample(sound.samples, sound.sample_rate, rate)
    longest = config.corpus.split_longer_than
    if longest and not sound.timings and len(samples) > longest * rate:
        pieces = divide(samples, rate, utterance.text, longest)
        if pieces:
            stored = [
                _Stored(
                    _write(
                        replace(utterance, id=f"{utterance.id}-{number}", text=piece.text),
                        samples[piece.start : piece.end], sound.sample_rate, folder, rate,
                    ),
                    f"{utterance.origin} ({piece.start / rate:.2f} to {piece.end / rate:.2f} s)",
                )
                for number, piece in enumerate(pieces, 1)
            ]  # fmt: skip
            return [replace(stored[0], notes=_notes(stored[0].clip.id, utterance, sound)), *stored[1:]]
    clip = _write(utterance, samples, sound.sample_rate, folder, rate)
    return [_Stored(clip, utterance.origin, sound.timings, _notes(clip.id, utterance, sound))]


def _notes(clip: str, utterance: Utterance, sound: Sound) -> tuple[Problem, ...]:
    """What was put right when the recording was read."""
    return tuple(Problem(clip, utterance.origin, note.reason, note.detail, NOTE) for note in sound.notes)


def _write(utterance: Utterance, samples: np.ndarray, source_rate: int, folder: Path, sample_rate: int) -> Clip:
    name = f"{AUDIO_FOLDER}/{utterance.id}.flac"
    write_audio(folder / name, samples, sample_rate)
    return Clip(
        id=utterance.id,
        audio=name,
        text=utterance.text,
        language=utterance.language,
        speaker=utterance.speaker,
        seconds=round(len(samples) / sample_rate, 6),
        sample_rate=sample_rate,
        source_sample_rate=source_rate,
    )
