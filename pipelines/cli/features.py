"""`myxtts features`: builds, checks and describes feature stores."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model.config.resolution import Resolved
from pipelines.cli.options import MODEL_FLAGS, PATH, corpus_option, json_option, settings_options

if TYPE_CHECKING:
    from model.features.extract import Progress
    from model.features.index import FeatureIndex

DAMAGED = 1


@click.group()
def features() -> None:
    """Build, check and describe feature stores."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@features.command()
@corpus_option
@click.option(
    "--output",
    type=PATH,
    default=Path("data/features"),
    show_default=True,
    help="Folder to write; an old store is replaced once the new one is complete.",
)
@click.option("--from-remote", metavar="S3-ADDRESS", help="DVC remote to stream the corpus from.")
@click.option("--data-hash", help="With --from-remote: DVC hash of the corpus, <md5>.dir in dvc.lock.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    help="Number of processes [default: chosen by the number of clips and cores].",
)
@json_option
@settings_options(*MODEL_FLAGS)
def build(
    settings: Resolved,
    corpus: Path,
    output: Path,
    from_remote: str | None,
    data_hash: str | None,
    workers: int,
    as_json: bool,
) -> None:
    """Extract tokens, mel, pitch, energy and speaker embeddings of all new or changed clips."""
    if bool(from_remote) != bool(data_hash):
        raise click.UsageError("--from-remote and --data-hash must be given together")
    from model.code_hash import code_hash
    from model.config.data import PreprocessSettings
    from model.features.extract import build_features
    from model.features.extractor import Recordings

    source: Path | Recordings = corpus
    if from_remote and data_hash:
        from components.remote_recordings import RemoteRecordings

        source = RemoteRecordings(from_remote, data_hash)
    with _progress_bar(hidden=as_json) as report:
        index = build_features(
            source,
            output,
            PreprocessSettings.of(settings.config),
            code=code_hash("model.features.extract"),
            workers=workers,
            report=report,
        )
    _show_store(output, index, as_json)


@features.command()
@click.argument("folder", type=PATH, default=Path("data/features"))
@json_option
@settings_options(*MODEL_FLAGS)
def verify(settings: Resolved, folder: Path, as_json: bool) -> None:
    """Compare the files of FOLDER with their checksums, and its extractor with the settings; exit 1 on a finding."""
    from model.errors import FeatureError
    from model.features.store import FeatureStore

    try:
        store = FeatureStore(folder)
        store.verify()
        store.check(settings.config.audio)
    except FeatureError as error:
        click.echo(
            json.dumps({"folder": str(folder), "finding": str(error)}) if as_json else str(error), err=not as_json
        )
        raise SystemExit(DAMAGED) from error
    _show_store(folder, store.index, as_json)


@features.command()
@click.argument("folder", type=PATH, default=Path("data/features"))
@json_option
def stats(folder: Path, as_json: bool) -> None:
    """Show the statistics of FOLDER: log-mel normalization, and duration, pitch and speaking rate of each speaker."""
    import math
    from dataclasses import asdict

    from model.features.index import FeatureIndex

    statistics = FeatureIndex.read(folder).statistics
    if as_json:
        click.echo(json.dumps(asdict(statistics), indent=1, ensure_ascii=False))
        return
    click.echo(f"log-mel {statistics.mel_mean:.3f} +- {statistics.mel_std:.3f} over the training clips")
    click.echo(f"{'speaker':24}{'clips':>7}{'minutes':>9}{'F0 Hz':>8}{'semitones':>11}{'voiced':>8}{'tokens/s':>10}")
    for name, own in statistics.speakers.items():
        mean, deviation = statistics.log_f0[name]
        pitch, spread = math.exp(mean), 12 / math.log(2) * deviation
        click.echo(
            f"{name[:23]:24}{own.clips:7}{own.seconds / 60:9.1f}{pitch:8.0f}{spread:11.1f}"
            f"{own.voiced_share:8.0%}{own.tokens_per_second:10.1f}"
        )


@contextmanager
def _progress_bar(hidden: bool) -> Iterator[Callable[["Progress"], None]]:
    """Yields the callback of a progress bar in clips, with speed and remaining time."""
    from tqdm import tqdm

    with tqdm(unit="clip", desc="features", disable=True if hidden else None, mininterval=1.0) as bar:

        def report(progress: "Progress") -> None:
            bar.total = progress.total
            bar.update(progress.done - bar.n)
            if progress.speed:
                left = tqdm.format_interval(progress.time_left)
                bar.set_postfix_str(f"{progress.speed:.0f} x real time, {left} left", refresh=False)

        yield report


def _show_store(folder: Path, index: "FeatureIndex", as_json: bool) -> None:
    """Prints size, hashes, speakers and languages of a feature store."""
    splits = Counter(clip.split for clip in index.clips)
    numbers = {
        "folder": str(folder),
        "content_hash": index.content_hash,
        "extractor_hash": index.extractor_hash,
        "clips": len(index.clips),
        "minutes": round(index.clips.seconds / 60, 2),
        "splits": dict(sorted(splits.items())),
        "speakers": index.speakers,
        "languages": index.languages,
        "unknown_symbols": index.unknown_symbols,
    }
    if as_json:
        click.echo(json.dumps(numbers, indent=1, ensure_ascii=False))
        return
    click.echo(
        f"{folder}: {numbers['clips']} clips, {numbers['minutes']} min, {len(index.speakers)} speakers, "
        f"languages {', '.join(index.languages)}, content {index.content_hash}"
    )
    if index.unknown_symbols:
        click.echo(f"skipped symbols that are not in the table: {index.unknown_symbols}", err=True)
