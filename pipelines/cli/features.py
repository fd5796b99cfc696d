"""`myxtts features`: a corpus to the shards that training reads, and a check of such shards."""

import json
import logging
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import click

from model.config import Resolved
from pipelines.cli.settings import settings_options

DAMAGED = 1


@click.group()
def features() -> None:
    """Build and check feature stores."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@features.command()
@click.option(
    "--corpus", type=click.Path(path_type=Path), default=Path("data/corpus"), show_default=True, help="Split corpus."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("data/features"),
    show_default=True,
    help="Folder to write; replaced once the new features are complete.",
)
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes [default: as many as pay].")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@settings_options("audio", "features")
def build(settings: Resolved, corpus: Path, output: Path, workers: int, as_json: bool) -> None:
    """Extract tokens, mel, pitch, energy and speaker vectors of every clip."""
    from components.source import code_hash
    from model.features.extract import build_features

    with _bar(hidden=as_json) as report:
        index = build_features(
            corpus,
            output,
            settings.config,
            code=code_hash("model.features.extract"),
            workers=workers,
            report=report,
        )
    _tell(output, index, as_json)


@features.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("data/features"))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@settings_options("audio")
def verify(settings: Resolved, folder: Path, as_json: bool) -> None:
    """Compare every file of FOLDER with its checksum, and its extractor with the settings; exits 1 on a finding."""
    from model.features.index import FeatureError
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
    _tell(folder, store.index, as_json)


@contextmanager
def _bar(hidden: bool):
    """Shows the progress of extraction in clips, with its speed and the time left."""
    from tqdm import tqdm

    with tqdm(unit="clip", desc="features", disable=True if hidden else None, mininterval=1.0) as bar:

        def report(progress) -> None:
            bar.total = progress.total
            bar.update(progress.done - bar.n)
            if progress.speed:
                left = tqdm.format_interval(progress.time_left)
                bar.set_postfix_str(f"{progress.speed:.0f} x real time, {left} left", refresh=False)

        yield report


def _tell(folder: Path, index, as_json: bool) -> None:
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
        click.echo(f"left out, no symbol: {index.unknown_symbols}", err=True)
