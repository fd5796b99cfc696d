"""`myxtts evaluate`: measures of a trained voice, and the page to listen to it."""

import json
from pathlib import Path

import click

from model.config import Resolved
from pipelines.cli.settings import settings_options


@click.command()
@click.option("--model", required=True, help="A voice folder, or models:/NAME@ALIAS from the registry.")
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    default=Path("data/features"),
    show_default=True,
    help="Feature store of the corpus.",
)
@click.option(
    "--corpus", type=click.Path(path_type=Path), default=Path("data/corpus"), show_default=True, help="The corpus."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("evaluation"),
    show_default=True,
    help="Folder for metrics.json and report.html.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@settings_options("evaluation")
def evaluate(settings: Resolved, model: str, features: Path, corpus: Path, output: Path, as_json: bool) -> None:
    """Measure a voice on held-out and training sentences and write a listening report."""
    from model.evaluation.evaluate import REPORT
    from model.evaluation.evaluate import evaluate as run
    from model.evaluation.evaluated import PARTS
    from model.evaluation.report import KIND_NAMES, MEASURES, figure

    if model.startswith("models:/"):
        from components.registry import voice_folder

        voice = voice_folder(model)
    else:
        voice = Path(model)
    result = run(voice, features, corpus, settings.config, output)
    if as_json:
        click.echo(json.dumps({name: value for name, value in result.items() if name != "clips"}, ensure_ascii=False))
        return
    for part in PARTS:
        click.echo(f"\n{part:24}" + "".join(f"{name:>16}" for name in KIND_NAMES.values()))
        for name, (title, _, decimals) in MEASURES.items():
            if name in result[part]:
                values = (figure(result[part][name].get(kind), decimals) for kind in KIND_NAMES)
                click.echo(f"{title:24}" + "".join(f"{value:>16}" for value in values))
    for name, measure in result["gate"].items():
        if measure["value"] is None:
            click.echo(f"{name} does not apply: {measure['reason']}")
    click.echo(f"\nreport: {output / REPORT}")
