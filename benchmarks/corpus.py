"""Benchmarks the data stages: speed on a large manifest, and detection of planted errors.

    python -m benchmarks.corpus scale --clips 100000
    python -m benchmarks.corpus speakers <ingested corpus>      # clips with a wrong speaker label
    python -m benchmarks.corpus division                        # division of long recordings

Results are printed as text.
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
from model.corpus.sentences import read_sentences
from model.corpus.split import assign_splits
from model.corpus.validate import check_metadata
from model.text.espeak import speak

RATE = 22050
MOVED = 5
"""Clips with a wrong speaker label per trial."""
MIN_CLIPS = 8
"""Clips that a speaker must have to take part."""


@click.group()
def program() -> None:
    """Benchmarks of the data stages."""


@program.command()
@click.option("--clips", default=100_000, show_default=True)
def scale(clips: int) -> None:
    """Measure the seconds to check and to split a manifest without audio."""
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
    splits = Counter(assign_splits(manifest, config.split).values())
    done = time.perf_counter()
    click.echo(f"{clips} clips: checked in {checked - start:.1f} s ({len(problems)} findings), ", nl=False)
    click.echo(f"split in {done - checked:.1f} s ({dict(splits)})")


@program.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--trials", default=20, show_default=True)
def speakers(folder: Path, trials: int) -> None:
    """Measure how many wrong speaker labels are found, and how many right ones are flagged."""
    from model.speaker_encoder import Resemblyzer

    clips = read_manifest(folder)
    encoder = Resemblyzer.load()
    vectors = np.stack([encoder.embed(*read_source(folder / clip.audio)) for clip in clips])
    counts = Counter(clip.speaker for clip in clips)
    candidates = [speaker for speaker, count in counts.items() if count >= MIN_CLIPS]
    places = [place for place, clip in enumerate(clips) if clip.speaker in candidates]
    choice, origins, limits = random.Random(0), {clip.id: "" for clip in clips}, Config().validation
    found = false_alarms = 0
    for _ in range(trials):
        moved, labeled = choice.sample(places, MOVED), list(clips)
        for place in moved:
            others = [speaker for speaker in candidates if speaker != clips[place].speaker]
            labeled[place] = replace(clips[place], speaker=choice.choice(others))
        flagged = {problem.id for problem in compare_speakers(labeled, origins, vectors, limits)[0]}
        planted = {clips[place].id for place in moved}
        found += len(flagged & planted)
        false_alarms += len(flagged - planted)
    total = trials * MOVED
    click.echo(f"{len(clips)} clips, {len(candidates)} speakers with at least {MIN_CLIPS} of them: ", nl=False)
    click.echo(f"found {found} of {total} wrong labels; ", nl=False)
    click.echo(f"{false_alarms} of {trials * len(clips) - total} right labels flagged")


@program.command()
@click.option("--trials", default=60, show_default=True)
@click.option("--longest", default=10.0, show_default=True, help="Seconds of the longest piece.")
def division(trials: int, longest: float) -> None:
    """Measure how many recordings of several sentences with random pauses are divided, and how many correctly."""
    choice = random.Random(1)
    divided = right = 0
    for _ in range(trials):
        language, voice = choice.choice([("en", "en-us"), ("fa", "fa")])
        sentences = choice.sample(read_sentences("", language), choice.randint(4, 8))
        samples, texts = _reading(sentences, voice, choice)
        pieces = divide(samples, RATE, " ".join(sentences), longest)
        prefixes = [" ".join(piece.text for piece in pieces[: number + 1]) for number in range(len(pieces))]
        divided += bool(pieces)
        right += bool(pieces) and all(
            any(start <= piece.end <= end and text == prefix for start, end, text in texts)
            for piece, prefix in zip(pieces, prefixes, strict=True)
        )
    click.echo(f"{trials} recordings: {divided} divided into pieces of at most {longest:g} s, ", nl=False)
    click.echo(f"{right} of them at sentence ends only, with the right texts")


def _reading(sentences: list[str], voice: str, choice: random.Random) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
    """Returns samples, and for each sentence the pause after it (start, end) and the text up to it."""
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
