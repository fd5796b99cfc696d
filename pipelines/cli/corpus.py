"""`myxtts corpus`: the data stages one by one or at a stroke, and numbers about a corpus."""

import json
import logging
from pathlib import Path
from typing import Any

import click

from components.state import write_json
from model.config.resolution import Resolved
from pipelines.cli.options import PATH, json_option
from pipelines.cli.settings import settings_options

INGESTED, VALIDATED, CORPUS = Path("data/ingested"), Path("data/validated"), Path("data/corpus")
CODE = Path("data/code")
SECTIONS = ("corpus", "validation", "split")
TOO_MANY_BAD = 1


def _path(flag: str, default: Path, help_text: str) -> Any:
    return click.option(flag, type=PATH, default=default, show_default=True, help=help_text)


@click.group()
def corpus() -> None:
    """Make, check and describe corpora."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@corpus.command()
@_path("--output", INGESTED, "Folder to write.")
@json_option
@settings_options("corpus")
def ingest(settings: Resolved, output: Path, as_json: bool) -> None:
    """Read or generate the corpus: normalised audio and one manifest."""
    _tell(_ingest(settings, output), as_json)


@corpus.command()
@_path("--source", INGESTED, "Ingested corpus.")
@_path("--output", VALIDATED, "Folder to write.")
@json_option
@settings_options("validation")
def validate(settings: Resolved, source: Path, output: Path, as_json: bool) -> None:
    """Check every clip and write the report; exits 1 when too many clips are bad."""
    _tell(_validate(settings, source, output), as_json)


@corpus.command()
@_path("--source", VALIDATED, "Validated corpus.")
@_path("--output", CORPUS, "Folder to write.")
@click.option("--metrics", type=PATH, help="JSON file for the numbers of each split.")
@json_option
@settings_options("split")
def split(settings: Resolved, source: Path, output: Path, metrics: Path | None, as_json: bool) -> None:
    """Assign clips to train, validation and test; write the self-contained corpus."""
    told = _split(settings, source, output)
    if metrics is not None:
        write_json(metrics, {key: told[key] for key in ("splits", "unheard_speakers", "set_aside")})
    _tell(told, as_json)


@corpus.command()
@_path("--output", CODE, "Folder to write, one file a stage.")
@json_option
@settings_options("corpus")
def code(settings: Resolved, output: Path, as_json: bool) -> None:
    """Fingerprint the code behind each data stage: DVC runs a stage again when its code has changed."""
    from model.corpus.stage_code import write_stage_hashes

    _tell(write_stage_hashes(output, settings.config.corpus), as_json)


@corpus.command()
@_path("--output", Path("data"), "Folder that gets ingested/, validated/ and corpus/.")
@json_option
@settings_options(*SECTIONS)
def make(settings: Resolved, output: Path, as_json: bool) -> None:
    """All three stages without DVC: from the settings to a corpus that can be trained on."""
    _all_stages(settings, output, as_json)


@corpus.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_path("--output", Path("data"), "Folder that gets ingested/, validated/ and corpus/.")
@json_option
@settings_options(*SECTIONS)
@click.pass_context
def import_(context: click.Context, settings: Resolved, folder: Path, output: Path, as_json: bool) -> None:
    """All three stages for the recordings in FOLDER: a corpus in a known layout, or several beside each other."""
    from model.config.data import CorpusConfig
    from model.config.resolution import COMMAND_LINE
    from model.corpus.readers import survey

    config = settings.config
    recorded = survey(folder)
    if settings.origins["corpus.name"] != COMMAND_LINE:
        recorded["name"] = "".join(c if c.isalnum() or c in "_-" else "_" for c in folder.absolute().name)
    corpus = CorpusConfig.model_validate(config.corpus.model_dump() | recorded)
    changed = config.model_copy(update={"corpus": corpus})
    _all_stages(Resolved(changed, settings.origins), output, as_json)


@corpus.command()
@click.argument("folder", type=PATH, default=CORPUS)
@json_option
def stats(folder: Path, as_json: bool) -> None:
    """Clips, seconds, speakers, languages per split; speaking rate; what was written out in words."""
    from model.corpus.stats import corpus_stats

    numbers = corpus_stats(folder)
    if as_json:
        click.echo(json.dumps(numbers, indent=1, ensure_ascii=False))
        return
    speed = numbers["characters_per_second"]
    click.echo(f"{folder}: {numbers['clips']} clips, {numbers['seconds'] / 60:.1f} min, {speed} characters per second")
    for title, groups in (
        ("split", numbers["splits"]),
        ("speaker", numbers["speakers"]),
        ("language", numbers["languages"]),
    ):
        width = max(map(len, (title, *groups))) + 2
        click.echo(f"\n{title:{width}}{'clips':>7}{'minutes':>9}")
        for name, total in groups.items():
            detail = f"  {len(total['speakers'])} speakers" if title == "split" else ""
            click.echo(f"{name:{width}}{total['clips']:7}{total['seconds'] / 60:9.1f}{detail}")
    unknown = numbers["unknown_characters"]
    listed = ", ".join(f"{character!r} x{count}" for character, count in unknown.items()) or "none"
    click.echo(f"\nunknown characters: {listed}")
    for language, changes in numbers["written_out"].items():
        click.echo(f"\nwritten out in {language}")
        for change in changes:
            click.echo(f"  {change['written']!r} -> {change['spoken']!r} ({change['count']}x)")


def _all_stages(settings: Resolved, output: Path, as_json: bool) -> None:
    ingested, validated, final = (output / folder.name for folder in (INGESTED, VALIDATED, CORPUS))
    result = _ingest(settings, ingested)
    result |= {"validation": _validate(settings, ingested, validated)}
    result |= {"splits": _split(settings, validated, final)["splits"], "folder": str(final)}
    _tell(result, as_json)


def _ingest(settings: Resolved, output: Path) -> dict[str, Any]:
    from model.corpus.ingest import ingest as run
    from model.corpus.problems import read_problems

    clips = run(settings.config, output, progress=True)
    about = json.loads((output / "source.json").read_text("utf-8"))
    return {
        "folder": str(output),
        "clips": len(clips),
        "minutes": round(sum(clip.seconds for clip in clips) / 60, 2),
        "problems": len(read_problems(output)),
        "speakers": sorted({clip.speaker for clip in clips}),
        **about,
    }


def _validate(settings: Resolved, source: Path, output: Path) -> dict[str, Any]:
    from model.corpus.problems import BAD
    from model.corpus.report import REPORT_HTML
    from model.corpus.validate import validate as run

    report = run(source, output, settings.config, progress=True)
    if not report.passed:
        for problem in report.problems:
            if problem.severity == BAD:
                click.echo(f"{problem.file}: {problem.reason}: {problem.detail}", err=True)
        click.echo(f"{report.summary}.\nReport: {output / REPORT_HTML}", err=True)
        raise SystemExit(TOO_MANY_BAD)
    return {"folder": str(output), "verdict": report.summary, "report": str(output / REPORT_HTML)}


def _split(settings: Resolved, source: Path, output: Path) -> dict[str, Any]:
    from collections import Counter

    from model.corpus.manifest import read_manifest
    from model.corpus.split import TRAIN
    from model.corpus.split import split as run

    clips = run(source, output, settings.config)
    trained = {clip.speaker for clip in clips if clip.split == TRAIN}
    return {
        "folder": str(output),
        "splits": dict(sorted(Counter(clip.split for clip in clips).items())),
        "unheard_speakers": sorted({clip.speaker for clip in clips} - trained),
        "set_aside": len(read_manifest(source)) - len(clips),
    }


def _tell(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result, indent=1, ensure_ascii=False))
        return
    for key, value in result.items():
        click.echo(f"{key:12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
