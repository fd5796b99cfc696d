"""`myxtts corpus`: runs the data stages, one by one or all at once, and describes corpora."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from model.config.resolution import Resolved
from model.files import write_json
from pipelines.cli.options import PATH, Command, chosen_project, json_option, project_options, settings_options

INGESTED, VALIDATED, CORPUS = Path("data/ingested"), Path("data/validated"), Path("data/corpus")
CODE = Path("data/code")
TOO_MANY_BAD = 1
"""Exit status when the share of bad clips is above `validation.tolerated_bad_share`."""
INGEST_FLAGS = (
    "corpus.name",
    "corpus.format",
    "corpus.path",
    "corpus.language",
    "corpus.engine",
    "corpus.sentences_per_voice",
)
VALIDATE_FLAGS = ("validation.min_seconds", "validation.max_seconds", "validation.check_speakers")
SPLIT_FLAGS = ("split.validation_share", "split.test_share", "split.min_held_out")


def _path(flag: str, default: Path, help_text: str) -> Callable[[Command], Command]:
    """Returns the decorator of an option for a path with a default."""
    return click.option(flag, type=PATH, default=default, show_default=True, help=help_text)


@click.group()
def corpus() -> None:
    """Make, check and describe corpora."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@corpus.command()
@_path("--output", INGESTED, "Folder to write.")
@json_option
@settings_options(*INGEST_FLAGS)
def ingest(settings: Resolved, output: Path, as_json: bool) -> None:
    """Read or generate the corpus: write normalized audio and a manifest."""
    _show(_ingest(settings, output), as_json)


@corpus.command()
@_path("--source", INGESTED, "Ingested corpus.")
@_path("--output", VALIDATED, "Folder to write.")
@json_option
@settings_options(*VALIDATE_FLAGS)
def validate(settings: Resolved, source: Path, output: Path, as_json: bool) -> None:
    """Check all clips and write the report; exit 1 when too many clips are bad."""
    _show(_validate(settings, source, output), as_json)


@corpus.command()
@_path("--source", VALIDATED, "Validated corpus.")
@_path("--output", CORPUS, "Folder to write.")
@click.option("--metrics", type=PATH, help="JSON file for the numbers of clips in each split.")
@json_option
@settings_options(*SPLIT_FLAGS)
def split(settings: Resolved, source: Path, output: Path, metrics: Path | None, as_json: bool) -> None:
    """Assign the clips to train, validation and test, and write the self-contained corpus."""
    result = _split(settings, source, output)
    if metrics is not None:
        write_json(metrics, {key: result[key] for key in ("splits", "held_out_speakers", "set_aside")})
    _show(result, as_json)


@corpus.command()
@_path("--output", CODE, "Folder to write, one file per stage.")
@json_option
@settings_options("corpus.format", "corpus.engine")
def code(settings: Resolved, output: Path, as_json: bool) -> None:
    """Write the hash of the code of each data stage: DVC runs a stage again when its code has changed."""
    from model.corpus.stage_code import write_stage_hashes

    _show(write_stage_hashes(output, settings.config.corpus), as_json)


@corpus.command()
@_path("--output", Path("data"), "Folder for ingested/, validated/ and corpus/.")
@json_option
@settings_options(*INGEST_FLAGS, *VALIDATE_FLAGS, *SPLIT_FLAGS)
def make(settings: Resolved, output: Path, as_json: bool) -> None:
    """Run all three stages without DVC, on recordings or sentences that the settings name."""
    _all_stages(settings, output, as_json)


@corpus.command()
@json_option
@project_options
def push(as_json: bool, **chosen: Any) -> None:
    """Push the corpus that the data stages made, as the newest data of its name.

    Runs with `data: latest`, such as those of a schedule, use it from then on.
    """
    project = chosen_project(**chosen)
    project.sync_dvc()
    project.require_own_data()
    _show(asdict(project.push()), as_json)


@corpus.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_path("--output", Path("data"), "Folder for ingested/, validated/ and corpus/.")
@json_option
@settings_options(*INGEST_FLAGS, *VALIDATE_FLAGS, *SPLIT_FLAGS)
@click.pass_context
def import_(context: click.Context, settings: Resolved, folder: Path, output: Path, as_json: bool) -> None:
    """Run all three stages without DVC on the recordings in FOLDER: one corpus or several (docs/corpus.md)."""
    from model.config.data import CorpusConfig
    from model.config.resolution import COMMAND_LINE
    from model.corpus.readers import survey
    from model.corpus.recordings import corpus_name

    config = settings.config
    recorded = survey(folder, config.corpus.follow_links)
    if settings.origins["corpus.name"] != COMMAND_LINE:
        recorded["name"] = corpus_name(folder.absolute().name)
    corpus = CorpusConfig.model_validate(config.corpus.model_dump() | recorded)
    changed = config.model_copy(update={"corpus": corpus})
    _all_stages(Resolved(changed, settings.origins), output, as_json)


@corpus.command()
@click.option("--language", default="en", show_default=True, help="Language of the sentences.")
@click.option("--sentences", type=click.IntRange(1), default=5, show_default=True, help="Number of sentences.")
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="List to choose from, one sentence per line [default: the shipped list].",
)
@click.option("--speaker", default="speaker", show_default=True, help="Name of the reader.")
@_path("--output", Path("recordings"), "Folder for the page and the recordings.")
@json_option
def prompts(language: str, sentences: int, texts: Path | None, speaker: str, output: Path, as_json: bool) -> None:
    """Choose the sentences with the most different sounds, to read aloud: the folder of recordings is a corpus."""
    from model.corpus.prompts import choose_prompts, write_prompts
    from model.corpus.sentences import read_list, shipped_list

    listed = read_list(texts) if texts else shipped_list(language)
    chosen, coverage = choose_prompts(listed, language, sentences)
    files = write_prompts(output, chosen, language, speaker)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "folder": str(output),
                    "prompts": [vars(prompt) for prompt in chosen],
                    "coverage": vars(coverage),
                    "files": [str(file) for file in files],
                },
                indent=1,
                ensure_ascii=False,
            )
        )
        return
    for prompt in chosen:
        click.echo(f"{prompt.name}.wav  {prompt.text}")
    click.echo(
        f"\n{len(chosen)} sentences with {coverage.summary()}\n"
        f"read them from  {files[0]}\n"
        f"save them in    {output}\n"
        f"then            myxtts run --data {output}"
    )


@corpus.command()
@click.argument("folder", type=PATH, default=CORPUS)
@json_option
def stats(folder: Path, as_json: bool) -> None:
    """Show clips, minutes, speakers and languages of each split, speaking rate, and expanded numbers and symbols."""
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


@corpus.command()
@click.argument("folder", type=PATH, default=CORPUS)
def pin(folder: Path) -> None:
    """Push a corpus to the DVC remote, and print its hash for evaluation.corpus: a fixed set to evaluate voices on."""
    from components import dvc
    from components.resolve_data.run import pin as run
    from pipelines.project import find_root

    click.echo(run(folder, dvc.remote_url(find_root())))


def _all_stages(settings: Resolved, output: Path, as_json: bool) -> None:
    """Runs ingest, validate and split, and prints the results of each."""
    ingested, validated, final = (output / folder.name for folder in (INGESTED, VALIDATED, CORPUS))
    result = _ingest(settings, ingested)
    result |= {"validation": _validate(settings, ingested, validated)}
    result |= {"splits": _split(settings, validated, final)["splits"], "folder": str(final)}
    _show(result, as_json)


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
    return {"folder": str(output), "status": report.summary, "report": str(output / REPORT_HTML)}


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
        "held_out_speakers": sorted({clip.speaker for clip in clips} - trained),
        "set_aside": len(read_manifest(source, beside=True)) - len(clips),
    }


def _show(result: dict[str, Any], as_json: bool) -> None:
    """Prints the result of a stage, one line per key."""
    if as_json:
        click.echo(json.dumps(result, indent=1, ensure_ascii=False))
        return
    for key, value in result.items():
        click.echo(f"{key:12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
