"""The data stages measured: how fast a large manifest is checked, and how often planted mistakes are found.

python benchmarks/corpus.py scale --clips 100000
python benchmarks/corpus.py speakers <ingested corpus>      # clips given to a wrong speaker
python benchmarks/corpus.py division                        # long readings, divided
"""

import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from model.audio.io import read_source
from model.config.schema import Config
from model.corpus.checks import compare_speakers
from model.corpus.long_clips import divide
from model.corpus.manifest import Clip, read_manifest
from model.corpus.readers.generated import read_sentences
from model.corpus.split import assign_splits
from model.corpus.validate import check_metadata
from model.text.espeak import speak

RATE = 22050
MOVED = 5
"""Clips of one trial that are given to a wrong speaker."""
LEAST_CLIPS = 8
"""Of a speaker whose clips are moved."""


@click.group()
def program() -> None:
    """Measurements of the data stages."""


@program.command()
@click.option("--clips", default=100_000, show_default=True)
def scale(clips: int) -> None:
    """Seconds to check and to split a manifest, without its audio."""
    generator = np.random.default_rng(0)
    words = np.array(["boat", "river", "the", "and", "morning", "late", "to", "garden", "blue", "seven"])
    manifest = [
        Clip(
            id=f"c{n}",
            audio="",
            text=f"{' '.join(words[generator.integers(0, 10, 9)])} {n}.",
            language="en",
            speaker=f"s{n % 500}",
            seconds=3.0,
            sample_rate=RATE,
            source_sample_rate=RATE,
        )
        for n in range(clips)
    ]
    config = Config()
    start = time.perf_counter()
    problems = check_metadata(manifest, {clip.id: "" for clip in manifest}, config.validation)
    checked = time.perf_counter()
    splits = Counter(assign_splits(manifest, config.split, config.seed).values())
    done = time.perf_counter()
    click.echo(f"{clips} clips: checked in {checked - start:.1f} s ({len(problems)} findings), ", nl=False)
    click.echo(f"split in {done - checked:.1f} s ({dict(splits)})")


@program.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--trials", default=20, show_default=True)
def speakers(folder: Path, trials: int) -> None:
    """Of clips given to a wrong speaker, how many are found, and how many right ones are flagged."""
    from model.speaker_encoder import Resemblyzer

    clips = read_manifest(folder)
    encoder = Resemblyzer.load()
    vectors = np.stack([encoder.embed(*read_source(folder / clip.audio)) for clip in clips])
    counts = Counter(clip.speaker for clip in clips)
    many = [speaker for speaker, count in counts.items() if count >= LEAST_CLIPS]
    places = [place for place, clip in enumerate(clips) if clip.speaker in many]
    choice, origins, limits = random.Random(0), {clip.id: "" for clip in clips}, Config().validation
    found = false = 0
    for _ in range(trials):
        moved, labelled = choice.sample(places, MOVED), list(clips)
        for place in moved:
            others = [speaker for speaker in many if speaker != clips[place].speaker]
            labelled[place] = replace(clips[place], speaker=choice.choice(others))
        flagged = {problem.id for problem in compare_speakers(labelled, origins, vectors, limits)[0]}
        planted = {clips[place].id for place in moved}
        found += len(flagged & planted)
        false += len(flagged - planted)
    total = trials * MOVED
    told = (
        f"{len(clips)} clips, {len(many)} speakers of {LEAST_CLIPS} or more: found {found} of {total} planted mix-ups"
    )
    click.echo(f"{told}; {false} of {trials * len(clips) - total} right clips flagged")


@program.command()
@click.option("--trials", default=60, show_default=True)
@click.option("--longest", default=10.0, show_default=True, help="Seconds of the longest piece.")
def division(trials: int, longest: float) -> None:
    """Readings of several sentences with pauses at random: how many are divided, and how many of these rightly."""
    choice = random.Random(1)
    divided = right = 0
    for _ in range(trials):
        language, voice = choice.choice([("en", "en-us"), ("fa", "fa")])
        sentences = choice.sample(read_sentences("", language), choice.randint(4, 8))
        samples, texts = _reading(sentences, voice, choice)
        pieces = divide(samples, RATE, " ".join(sentences), longest)
        said = [" ".join(piece.text for piece in pieces[: number + 1]) for number in range(len(pieces))]
        divided += bool(pieces)
        right += bool(pieces) and all(
            any(start <= piece.end <= end and text == so_far for start, end, text in texts)
            for piece, so_far in zip(pieces, said, strict=True)
        )
    click.echo(f"{trials} readings: {divided} divided into pieces of at most {longest:g} s, ", nl=False)
    click.echo(f"{right} of them at ends of sentences only, with the right texts")


def _reading(sentences: list[str], voice: str, choice: random.Random) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
    """Samples, and for each sentence the pause behind it (from, to) and the text up to there."""
    noise = np.random.default_rng(choice.randrange(2**32))
    parts: list[np.ndarray] = []
    texts, position = [], 0
    for number, sentence in enumerate(sentences):
        samples = speak(sentence, voice)[0]
        loud = np.flatnonzero(np.abs(samples) > 0.01)
        pause = np.zeros(int(choice.uniform(0.3, 0.8) * RATE))
        parts += [samples[loud[0] : loud[-1]], pause]
        end = position + len(parts[-2])
        position = end + len(pause)
        texts.append((end - RATE // 50, position + RATE // 50, " ".join(sentences[: number + 1])))
    samples = np.concatenate(parts)
    return (samples + 1e-4 * noise.standard_normal(len(samples))).astype(np.float32), texts


if __name__ == "__main__":
    program()
