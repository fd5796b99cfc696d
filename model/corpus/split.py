"""The `split` stage: which clips are held out. A sentence belongs to one split; some speakers are never trained on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import unicodedata
from collections import defaultdict
from pathlib import Path

from model.config.data import SplitConfig
from model.config.schema import Config
from model.corpus.folders import stage_folder
from model.corpus.manifest import Clip, read_manifest, write_manifest
from model.corpus.timings import ALIGNMENTS, read_alignments, write_alignments
from model.errors import CorpusError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
CLIPS_PER_HELD_OUT = 8
"""A speaker of at least this many clips is heard in each held-out split."""
SPEAKERS_PER_HELD_OUT = 10
"""Speakers are held out in languages with at least this many: with fewer, all are needed to train."""


def split(source: Path, destination: Path, config: Config) -> list[Clip]:
    """Split the validated corpus in `source`; write a self-contained corpus to `destination`.

    `destination` gets `manifest.jsonl` with a split for each clip, `audio/` (hard links where the file system allows,
    else copies) and `alignments.jsonl` where the speech has one.

    Returns:
        The clips of the corpus. Missing are those of held-out speakers that say a sentence to train on.

    Raises:
        CorpusError: there are too few clips to hold any out.
        ManifestError: `source` holds no manifest.
    """
    source = Path(source)
    found = read_manifest(source)
    assigned = assign_splits(found, config.split, config.seed)
    clips = [clip for clip in found if clip.id in assigned]
    moved = []
    with stage_folder(destination) as folder:
        (folder / "audio").mkdir()
        for clip in clips:
            name = f"audio/{Path(clip.audio).name}"
            _link(source / clip.audio, folder / name)
            moved.append(Clip(**{**vars(clip), "audio": name, "split": assigned[clip.id]}))
        write_manifest(folder, moved)
        if (source / ALIGNMENTS).is_file():
            timings = read_alignments(source)
            write_alignments(folder, {clip.id: timings[clip.id] for clip in moved if clip.id in timings})
    return moved


def assign_splits(clips: list[Clip], config: SplitConfig, seed: int) -> dict[str, str]:
    """Clip id -> split; clips that are set aside are missing.

    Every speaker of a language with many has a place in [0, 1) by the hash of its name and the seed: those below
    `held_out_speakers` are never trained on, so that cloning can be judged. Of their clips those become tests whose
    sentence no other speaker says, or is held out anyway; the rest are set aside.

    Every text of the other speakers has a place in [0, 1) by its hash and the seed: the lowest are the test split,
    the highest the validation split. A split that this leaves short (fewer than `min_held_out` clips, or a speaker of
    many clips unheard) takes the next texts from its end. Added clips therefore move others only where they end such
    a shortage.

    Raises:
        CorpusError: less than half of the clips would be left to train on.
    """
    unheard = held_out_speakers(clips, config.held_out_speakers, seed)
    by_text: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.speaker not in unheard:
            by_text[_spoken_form(clip.text)].append(clip)
    places = {text: _place(text, seed) for text in by_text}
    upwards = sorted(by_text, key=lambda text: (places[text], text))

    test = _held_out(upwards, {t for t in by_text if places[t] < config.test_share}, set(), by_text, config)
    chosen = {t for t in by_text if places[t] >= 1 - config.validation_share} - test
    validation = _held_out(upwards[::-1], chosen, test, by_text, config)

    held_out = sum(len(by_text[text]) for text in test | validation)
    short = any(sum(len(by_text[text]) for text in part) < config.min_held_out for part in (test, validation))
    if short or held_out > len(clips) / 2:
        raise CorpusError(
            f"the corpus is too small to split: it has {len(clips)} clips of {len(by_text)} sentences; {held_out} of "
            f"them would be held out (split.min_held_out is {config.min_held_out}, for validation and for test), and "
            "at least as many must remain to train on; add recordings or lower split.min_held_out"
        )
    names = dict.fromkeys(validation, VALIDATION) | dict.fromkeys(test, TEST)
    assigned = {clip.id: names.get(text, TRAIN) for text, members in by_text.items() for clip in members}
    for clip in clips:
        if clip.speaker in unheard:
            text = _spoken_form(clip.text)
            if text not in by_text or text in names:
                assigned[clip.id] = names.get(text, TEST)
    return assigned


def held_out_speakers(clips: list[Clip], share: float, seed: int) -> set[str]:
    """Speakers that are never trained on; the choice of one depends on no other, only on how many there are."""
    languages: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        languages[clip.language].add(clip.speaker)
    needed = {speaker for found in languages.values() if len(found) < SPEAKERS_PER_HELD_OUT for speaker in found}
    everyone = set().union(*languages.values())
    return {speaker for speaker in everyone - needed if _place(f"speaker {speaker}", seed) < share}


def _held_out(
    order: list[str], chosen: set[str], taken: set[str], by_text: dict[str, list[Clip]], config: SplitConfig
) -> set[str]:
    """`chosen` and as many more texts, in order and none of those taken, as the split needs."""
    wanted: dict[str, int] = defaultdict(int)
    for members in by_text.values():
        for clip in members:
            wanted[clip.speaker] += 1
    missing = {speaker for speaker, count in wanted.items() if count >= CLIPS_PER_HELD_OUT}
    missing -= {clip.speaker for text in chosen for clip in by_text[text]}
    chosen = set(chosen)
    count = sum(len(by_text[text]) for text in chosen)
    for text in order:
        speakers = {clip.speaker for clip in by_text[text]}
        if text in chosen or text in taken or not (count < config.min_held_out or missing & speakers):
            continue
        chosen.add(text)
        count += len(by_text[text])
        missing -= speakers
    return chosen


def _spoken_form(text: str) -> str:
    """Letters and figures of a text: what it says, however it is written."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def _place(text: str, seed: int) -> float:
    digest = hashlib.sha256(json.dumps([seed, text]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _link(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, destination)
