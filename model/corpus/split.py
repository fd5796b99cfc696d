"""The `split` stage: held-out clips by sentence and by speaker."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from model.config.data import SplitConfig
from model.config.schema import Config
from model.corpus.manifest import Clip, read_manifest, stage_folder, write_license, write_manifest
from model.corpus.timings import ALIGNMENTS, read_alignments, write_alignments
from model.errors import CorpusError
from model.text import spoken_form

TRAIN, VALIDATION, TEST = "train", "validation", "test"
CLIPS_PER_HELD_OUT = 8
"""Number of clips from which a speaker is in each held-out split. Of small corpora, one in this many is held out."""
SALT = 1234
"""Constant input of the hash. It is the former default seed, so that existing splits do not change."""
SPEAKERS_PER_HELD_OUT = 10
"""Number of speakers of a language from which some of them are held out."""


def split(source: Path, destination: Path, config: Config) -> list[Clip]:
    """Splits the validated corpus in `source` and writes a self-contained corpus to `destination`.

    `destination` gets `manifest.jsonl` with the split of each clip, `audio/` (hard links where possible, else copies),
    `alignments.jsonl` if the speech has one, and `license.json` if the license is given.

    Returns:
        The clips of the corpus, without clips of held-out speakers whose sentence is in the training split.

    Raises:
        CorpusError: there are too few clips to hold out any.
        ManifestError: `source` has no manifest.
    """
    source = Path(source)
    found = read_manifest(source, beside=True)
    assigned = assign_splits(found, config.split)
    clips = [clip for clip in found if clip.id in assigned]
    moved = []
    with stage_folder(destination) as folder:
        (folder / "audio").mkdir()
        for clip in clips:
            name = f"audio/{Path(clip.audio).name}"
            _link(source / clip.audio, folder / name)
            moved.append(replace(clip, audio=name, split=assigned[clip.id]))
        write_manifest(folder, moved)
        write_license(folder, config.corpus.license)
        if (source / ALIGNMENTS).is_file():
            timings = read_alignments(source)
            write_alignments(folder, {clip.id: timings[clip.id] for clip in moved if clip.id in timings})
    return moved


def assign_splits(clips: list[Clip], config: SplitConfig) -> dict[str, str]:
    """Returns the split of each clip by id; clips that are left out are missing.

    In languages with many speakers, each speaker gets a position in [0, 1) by the hash of its name. Those
    below `held_out_speakers` are excluded from training, so that cloning can be evaluated. Their clips are test clips
    if no other speaker says the sentence or if it is held out anyway; the rest is left out.

    Every text of the other speakers gets a position in [0, 1) by its hash: the lowest are the test split,
    the highest the validation split. If a split then has fewer than `min_held_out` clips or lacks a speaker with many
    clips, it takes the next texts. New clips therefore move other clips only where they end such a shortage.

    A corpus of fewer than eight times `min_held_out` clips holds out an eighth of its clips for each split, and at
    least one clip for validation: of five recordings, four are trained on.

    Raises:
        CorpusError: less than half of the clips would remain for training.
    """
    excluded = held_out_speakers(clips, config.held_out_speakers)
    by_text: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.speaker not in excluded:
            by_text[spoken_form(clip.text)].append(clip)
    positions = {text: _position(text) for text in by_text}
    ascending = sorted(by_text, key=lambda text: (positions[text], text))

    count = sum(map(len, by_text.values()))
    is_small = count < CLIPS_PER_HELD_OUT * config.min_held_out
    least = count // CLIPS_PER_HELD_OUT if is_small else config.min_held_out
    lowest = {text for text in by_text if positions[text] < config.test_share and not is_small}
    highest = {text for text in by_text if positions[text] >= 1 - config.validation_share and not is_small}
    test = _held_out(ascending, lowest, set(), by_text, least)
    validation = _held_out(ascending[::-1], highest - test, test, by_text, max(1, least))

    held_out = sum(len(by_text[text]) for text in test | validation)
    short = any(sum(len(by_text[text]) for text in part) < needed for part, needed in ((test, least), (validation, 1)))
    if short or held_out > count / 2:
        raise CorpusError(
            f"the corpus is too small to split: it has {count} clips of {len(by_text)} sentences to divide; {held_out} "
            f"of them would be held out for validation and test (split.min_held_out is {config.min_held_out}), and at "
            "least as many must remain for training; add recordings of other sentences"
        )
    names = dict.fromkeys(validation, VALIDATION) | dict.fromkeys(test, TEST)
    assigned = {clip.id: names.get(text, TRAIN) for text, members in by_text.items() for clip in members}
    for clip in clips:
        if clip.speaker in excluded:
            text = spoken_form(clip.text)
            if text not in by_text or text in names:
                assigned[clip.id] = names.get(text, TEST)
    return assigned


def held_out_speakers(clips: list[Clip], share: float) -> set[str]:
    """Returns the speakers that are excluded from training, chosen independently of each other."""
    languages: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        languages[clip.language].add(clip.speaker)
    needed = {speaker for found in languages.values() if len(found) < SPEAKERS_PER_HELD_OUT for speaker in found}
    everyone = set().union(*languages.values())
    return {speaker for speaker in everyone - needed if _position(f"speaker {speaker}") < share}


def _held_out(
    order: list[str], chosen: set[str], taken: set[str], by_text: dict[str, list[Clip]], least: int
) -> set[str]:
    """Returns `chosen` with as many further texts, in order and without those `taken`, as the split needs.

    It needs `least` clips, and one of each speaker with many clips.
    """
    counts = Counter(clip.speaker for members in by_text.values() for clip in members)
    missing = {speaker for speaker, count in counts.items() if count >= CLIPS_PER_HELD_OUT}
    missing -= {clip.speaker for text in chosen for clip in by_text[text]}
    chosen = set(chosen)
    count = sum(len(by_text[text]) for text in chosen)
    for text in order:
        speakers = {clip.speaker for clip in by_text[text]}
        if text in chosen or text in taken or not (count < least or missing & speakers):
            continue
        chosen.add(text)
        count += len(by_text[text])
        missing -= speakers
    return chosen


def _position(text: str) -> float:
    """Returns a pseudo-random number in [0, 1) from the hash of a text."""
    digest = hashlib.sha256(json.dumps([SALT, text]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _link(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except FileExistsError as error:  # overwriting the hard link would change the other clip's recording
        raise CorpusError(f"{source}: another clip has a recording of the same name; rename one of them") from error
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, destination)
