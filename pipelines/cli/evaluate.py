"""`myxtts evaluate`: computes the metrics of a voice and writes the listening report."""

import json
from pathlib import Path

import click

from model.config.resolution import Resolved
from pipelines.cli.options import (
    MODEL_FLAGS,
    PATH,
    corpus_option,
    features_option,
    json_option,
    model_option,
    settings_options,
)


@click.command()
@model_option
@features_option
@corpus_option
@click.option(
    "--output",
    type=PATH,
    default=Path("evaluation"),
    show_default=True,
    help="Folder for metrics.json and report.html.",
)
@click.option("--listening-test", type=PATH, help="HTML page of a blind listening test to write, with its key.")
@click.option("--against", help="Another voice, for the listening test and on the same sentences.")
@json_option
@settings_options(*MODEL_FLAGS, "evaluation.max_clips", "evaluation.recognizer")
def evaluate(
    settings: Resolved,
    model: str,
    features: Path,
    corpus: Path,
    output: Path,
    listening_test: Path | None,
    against: str | None,
    as_json: bool,
) -> None:
    """Compute the metrics of a voice on held-out and training sentences, and write a listening report."""
    if against and not listening_test:
        raise click.UsageError("--against requires --listening-test")
    from tqdm import tqdm

    from components.registry import find_voice
    from model.config.evaluation import EvaluateSettings
    from model.evaluation.evaluate import REPORT
    from model.evaluation.evaluate import evaluate as run
    from model.evaluation.listening import write_test
    from model.evaluation.metric_table import METRIC_TABLE
    from model.evaluation.report import KIND_NAMES, format_value
    from model.evaluation.results import PARTS
    from model.voice_folder import read_training_sentences

    with tqdm(desc="evaluate", unit="step", disable=True if as_json else None, mininterval=1.0) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        voices = {"voice": (find_voice(model), output)}
        if against:
            voices["other"] = (find_voice(against), output / "against")
        known = [read_training_sentences(voice) or frozenset() for voice, _ in voices.values()]
        results = {
            name: run(
                voice,
                features,
                corpus,
                EvaluateSettings.of(settings.config),
                folder,
                progress,
                exclude=frozenset().union(*known),
            )
            for name, (voice, folder) in voices.items()
        }
    result = results["voice"]
    if listening_test:
        key = write_test(listening_test, "Listening test", {name: folder for name, (_, folder) in voices.items()})
        click.echo(f"listening test: {listening_test}, key: {key}", err=True)
    if as_json:
        click.echo(json.dumps({name: value for name, value in result.items() if name != "clips"}, ensure_ascii=False))
        return
    for part in PARTS:
        click.echo(f"\n{part:24}" + "".join(f"{name:>16}" for name in KIND_NAMES.values()))
        for name, metric in METRIC_TABLE.items():
            if name in result[part]:
                values = (format_value(result[part][name].get(kind), metric.decimals) for kind in KIND_NAMES)
                click.echo(f"{metric.label:24}" + "".join(f"{value:>16}" for value in values))
    for name, mean in result["gate"].items():
        if mean["value"] is None:
            click.echo(f"{METRIC_TABLE[name].label} does not apply: {mean['reason']}")
    click.echo(f"\nreport: {output / REPORT}")
